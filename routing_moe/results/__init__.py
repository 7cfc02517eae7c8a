"""Tables of results: scores, comparisons of variants, few-shot summaries, relative gains, costs, statistics.

May import: evaluation and below, dataloader.
"""
