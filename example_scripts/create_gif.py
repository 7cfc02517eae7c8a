#!/usr/bin/env python3
"""How the routes of a run developed: an animation of its route maps, curves over training, and their table.

The same as `routing-moe create-gif`; runs without installation, from any folder.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from example_scripts.command import main_of

main = main_of("create_gif")

if __name__ == "__main__":
    sys.exit(main())
