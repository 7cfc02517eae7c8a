#!/usr/bin/env python3
"""Collect results of few-shot fine-tuning on many tasks in one table: mean and sample std over samples.

The same as `routing-moe collect-results`; runs without installation, from any folder.
"""

from command import main_of  # in this folder

if __name__ == "__main__":
    raise SystemExit(main_of("collect_results")())
