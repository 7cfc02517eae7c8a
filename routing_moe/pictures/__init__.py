"""Everything that draws, with matplotlib: heat maps, dots, lines, an animation.

May import: analysis and below.
"""
