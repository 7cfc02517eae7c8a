"""Dev and test scores: generation, option ranking, and the task vectors of unseen tasks.

May import: checkpoints and below, dataloader.
"""
