"""The training loop, prediction after training, and the checks before both.

May import: results and below, dataloader.
"""
