"""The model: configuration, experts, routers, route selection, task vectors, conversion from and to BART.

May import: config, io. Does not read the files of a gym.
"""
