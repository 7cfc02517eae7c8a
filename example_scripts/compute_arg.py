#!/usr/bin/env python3
"""Average relative gain (ARG) of systems over a baseline, as tables and a chart.

The same as `routing-moe compute-arg`; runs without installation, from any folder.
"""

from command import main_of  # in this folder

if __name__ == "__main__":
    raise SystemExit(main_of("compute_arg")())
