"""Checkpoints: find, load and save them, start a run from them, and merge those of the two training stages.

May import: optim and below.
"""
