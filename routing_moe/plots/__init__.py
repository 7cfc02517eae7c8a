"""Everything that draws, with matplotlib: route maps, clustermaps, curves, dot plots, animations.

May import: analysis and below.
"""
