"""Few-shot fine-tuning on one task: a grid of samples x learning rates x batch sizes, chosen by dev scores.

checks.py: flags and files. grid.py: the folder. trial.py: a configuration. starting_model.py: its start.
May import: training and below, dataloader.
"""
