"""Evaluation: generation, option ranking, dev and test scores, and the task vectors of unseen tasks.

May import: checkpoints and below, dataloader.
"""
