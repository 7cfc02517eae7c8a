"""The HTML report page, and the result files of an ablation.

May import: plots and below.
"""
