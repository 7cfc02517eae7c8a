"""Ablation of experts: the scores of tasks without some experts, and the plan of which experts to ablate.

May import: analysis and below.
"""
