"""The optimizer step, which is the same for all routings and baselines.

May import: model and below, dataloader.
"""
