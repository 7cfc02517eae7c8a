"""Checks the start that flags of `routing_moe.cli.finetune` name; the hub must know a model that is not here.

The scripts that fine-tune on a list of tasks run it once with the flags of the first task.
"""

import sys

from routing_moe.checkpoints.find import SavedBart
from routing_moe.cli.console import reporting_errors
from routing_moe.config.finetune import FinetuneSettings, finetune_settings
from routing_moe.config.flags import parse
from routing_moe.finetuning.checks import find_valid_start
from routing_moe.model.saved_config import load_bart_config


def main(argv: list[str] | None = None) -> int:
    settings = finetune_settings(parse(FinetuneSettings, argv, __doc__))
    with reporting_errors() as result:
        start = find_valid_start(settings)
        if isinstance(start, SavedBart):
            load_bart_config(start.source, ask_hub=True)
    return result.exit_code


if __name__ == "__main__":
    sys.exit(main())
