"""Evaluation: generation, option ranking, dev and test scores, losses along routes, and text vectors.

May import: checkpoints and below, dataloader.
"""
