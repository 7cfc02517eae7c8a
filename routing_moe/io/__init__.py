"""Files, processes and logs: atomic writes, locks, run descriptions, process pools, accelerators, trackers.

May import: config, dataloader. Knows no model.
"""
