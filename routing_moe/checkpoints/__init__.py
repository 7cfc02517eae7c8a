"""Checkpoints on disk: find, load, save, start from, and merge between the two stages of training.

May import: optim and below.
"""
