"""Compute task vectors, the input of the router, by one of several methods.

settings.py  flags and data of each method  methods.py, gradients.py  what computes one vector
job.py       the loop that fills a folder   reduce.py, inspect.py     components; agreement with labels
"""
