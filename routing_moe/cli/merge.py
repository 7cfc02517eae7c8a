"""Restart a run's experts from pre-trained weights and keep its routes (`average --merger` combines weights).

    routing-moe merge --routes_from models/stage1 --output_dir models/two_stage
    routing-moe train --output_dir models/two_stage --checkpoint_name init --router_mode softmax \\
        --initial_tau 300 --minimum_tau 1 --anneal_rate 1e-4 \\
        --router_lr 0 --task_model_lr 0 --total_steps 60000 --train_dir data/gym
    routing-moe merge --routes_from published_run --output_dir models/from_published

The first command writes models/two_stage/init. The second, stage 2, starts from it: experts are trained again
while the routes change from the average of the experts to the choice that the router learned in stage 1.
"""

from dataloader.atomic_files import folder_lock
from routing_moe.checkpoints.merge_stages import (
    MERGE_FILE,
    check_made_of,
    check_merge,
    check_target,
    made_of,
    merge,
    write_merged,
)
from routing_moe.config.assemble import MergeSettings
from routing_moe.config.console import run_command
from routing_moe.config.flags import command_line
from routing_moe.io.logs import start_logging
from routing_moe.io.memory import naming_memory_flags


def main(argv: list[str] | None = None) -> int:
    def run(settings: MergeSettings) -> None:
        settings, routes = check_merge(settings)
        start_logging()
        with folder_lock(settings.output_dir):
            check_target(settings)  # again, now that the folder is locked
            if settings.target.exists():  # and --keep_existing was given
                return check_made_of(settings.target / MERGE_FILE, made_of(settings, routes))
            with naming_memory_flags(settings):
                model, tokenizer = merge(settings, routes)
            write_merged(settings, routes, model, tokenizer, command_line(MergeSettings, argv))

    return run_command(run, MergeSettings, argv, __doc__, lambda _: "nothing was written")
