"""The model: configuration, experts, routers, selection of routes, task vectors, conversion from and to BART.

May import: config and below. Does not read the files of a gym.
"""
