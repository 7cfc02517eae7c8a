"""Numbers that explain routes: metrics, features, correlations, recovery, ablation. Draws nothing.

May import: finetuning and below, dataloader. Imports no matplotlib.
"""
