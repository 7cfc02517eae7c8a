#!/usr/bin/env python3
"""Collect results of few-shot fine-tuning on many tasks in one table: mean and sample std over samples.

The same as `routing-moe collect-results`; runs without installation, from any folder.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from example_scripts.command import main_of

main = main_of("collect_results")

if __name__ == "__main__":
    sys.exit(main())
