#!/usr/bin/env python3
"""Average relative gain (ARG) of systems over a baseline, as tables and a chart.

The same as `routing-moe compute-arg`; runs without installation, from any folder.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from example_scripts.command import main_of

main = main_of("compute_arg")

if __name__ == "__main__":
    sys.exit(main())
