"""Files, processes and logs: atomic folders, run descriptions, one executor, accelerators, trackers.

May import: dataloader. Knows no flags and no model.
"""
