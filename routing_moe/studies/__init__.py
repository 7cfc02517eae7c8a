"""Experiments of many runs: a table of variants per study, one runner for all; bash scripts only start them.

May import: everything in routing_moe. Runs are commands, which are started as processes.
"""
