"""Files, processes and logs: atomic folders, run descriptions, shell commands, accelerators, trackers.

May import: dataloader. Knows no flags and no model.
"""
