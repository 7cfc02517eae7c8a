"""Print one table of compared runs: the same as `compare FOLDER --columns cost dev test unseen`.

routing-moe overview models/quickstart --recovery skill
"""

import sys

from routing_moe.cli.compare import compare
from routing_moe.cli.console import run_command
from routing_moe.config.tables import OverviewSettings


def main(argv: list[str] | None = None) -> int:
    return run_command(compare, OverviewSettings, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
