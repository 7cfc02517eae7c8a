"""Files, processes and logs: atomic writes, locks, run descriptions, process pools, accelerators, trackers.

May import: dataloader. Knows no flags and no model.
"""
