"""The model: configuration, experts, routers, selection of routes, task vectors, conversion from and to BART.

May import: config, io. Knows no files of a gym.
"""
