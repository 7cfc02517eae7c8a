"""Checks the start that flags of `routing_moe.cli.finetune` name; the hub must know a model that is not here.

The scripts that fine-tune on a list of tasks run it once with the flags of the first task.
"""

import sys

from routing_moe.checkpoints.find import find_start
from routing_moe.cli.console import reporting_errors
from routing_moe.config.finetune import FinetuneSettings, finetune_settings
from routing_moe.config.flags import parse


def main(argv: list[str] | None = None) -> int:
    settings = finetune_settings(parse(FinetuneSettings, argv, __doc__))
    with reporting_errors() as result:
        _ = find_start(settings.start, settings.moe_init).config
    return result.exit_code


if __name__ == "__main__":
    sys.exit(main())
