"""The HTML report page, and the result files of routes, features and ablations.

May import: plots and below.
"""
