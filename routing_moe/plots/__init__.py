"""Everything that draws, with matplotlib: route maps, clustermaps, curves, dot plots, an animation.

May import: analysis and below.
"""
