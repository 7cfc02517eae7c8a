"""Files, processes and logs: atomic folders, run descriptions, process pools, accelerators, trackers.

May import: dataloader. Knows no flags and no model.
"""
