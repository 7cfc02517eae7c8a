#!/usr/bin/env python3
"""How the routes of a run developed: an animation of its route maps, curves over training, and their table.

The same as `routing-moe create-gif`; runs without installation, from any folder.
"""

from command import main_of  # in this folder

if __name__ == "__main__":
    raise SystemExit(main_of("create_gif")())
