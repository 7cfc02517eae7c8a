"""Files, processes and logs: atomic writes, locks, run descriptions, process pools, accelerators, trackers.

May import: config, dataloader. Does not depend on the model.
"""
