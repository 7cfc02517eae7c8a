"""Between the two stages of training: keep a run's router and task vectors, copy new experts from BART.

    routing-moe merge --routes_from models/stage1 --output_dir models/two_stage
    routing-moe train --output_dir models/two_stage --checkpoint_name init --router_mode softmax \\
        --initial_tau 300 --minimum_tau 1 --anneal_rate 1e-4 \\
        --router_lr 0 --task_model_lr 0 --total_steps 60000 --train_dir data/gym
    routing-moe merge --routes_from published_run --output_dir models/from_published

The first command writes models/two_stage/init. The second, stage 2, starts from it: experts are trained again
while the routes change from the average of the experts to the choice that the router learned in stage 1.
"""

import sys

from dataloader.atomic_files import folder_lock
from dataloader.errors import InputError
from routing_moe.checkpoints.find import SavedMixture
from routing_moe.checkpoints.merge_stages import (
    check_merge,
    check_target,
    differences,
    merge,
    summary,
    write_merged,
)
from routing_moe.cli.console import reporting_errors
from routing_moe.config.flags import command_line, parse
from routing_moe.config.merge import MergeSettings
from routing_moe.io.logs import start_logging
from routing_moe.io.memory import naming_memory_flags


def main(argv: list[str] | None = None) -> int:
    settings = MergeSettings(**parse(MergeSettings, argv, __doc__))
    with reporting_errors(lambda: "nothing was written") as result:
        settings, routes = check_merge(settings)
        start_logging()
        with folder_lock(settings.output_dir):
            merge_or_keep(settings, routes, argv)
    return result.exit_code


def merge_or_keep(settings: MergeSettings, routes: SavedMixture, argv: list[str] | None) -> None:
    check_target(settings)  # again, now that the folder is locked
    if settings.target.exists():  # and --keep_existing was given
        return keep(settings, routes)
    with naming_memory_flags(settings):
        model, tokenizer = merge(settings, routes)
    write_merged(settings, routes, model, tokenizer, command_line(MergeSettings, argv))
    print(summary(settings, routes, model))


def keep(settings: MergeSettings, routes: SavedMixture) -> None:
    """Keeps the existing checkpoint. Raises InputError if it was merged from other sources."""
    if different := differences(settings, routes):
        raise InputError(
            f"--keep_existing: {settings.target} was made from other sources ({', '.join(different)}); "
            "delete it and what was trained from it, or choose another --output_dir"
        )
    print(f"{settings.target} exists already, made from the same sources")


if __name__ == "__main__":
    sys.exit(main())
