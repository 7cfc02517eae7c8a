"""The HTML report page (Altair), and the result files of routes, features and ablations.

May import: pictures and below.
"""
