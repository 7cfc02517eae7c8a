"""Tables of results: scores, comparisons of variants, few-shot summaries, relative gains, costs, statistics.

May import: checkpoints and below, dataloader.
"""
