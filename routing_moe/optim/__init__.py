"""One optimizer step, the same for every routing and every baseline.

May import: model and below, dataloader.
"""
