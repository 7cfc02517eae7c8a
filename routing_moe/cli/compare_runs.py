"""Compare variants by category: the same as `compare FOLDER --columns categories`.

routing-moe compare-runs models/compare_routings --baseline average
"""

import sys

from routing_moe.cli.compare import compare
from routing_moe.cli.console import run_command
from routing_moe.config.tables import CompareRunsSettings


def main(argv: list[str] | None = None) -> int:
    return run_command(compare, CompareRunsSettings, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
