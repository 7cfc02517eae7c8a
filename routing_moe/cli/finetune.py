"""Fine-tune on one few-shot task: every sample x learning rate x batch size, selected by dev score.

    routing-moe finetune --task_dir data/gym/ag_news \\
        --checkpoint models/multitask_bart --output_dir models/multitask/singletask-ag_news
    routing-moe finetune --task_dir data/gym/ag_news \\
        --moe_init --init_dir models/two_stage --num_workers 4 --output_dir models/moe/singletask-ag_news
    routing-moe finetune --do_predict --task_dir data/gym/ag_news \\
        --moe_init --init_dir models/two_stage --output_dir models/moe_as_it_is/singletask-ag_news

After an interruption the same command continues; given more samples, rates or batch sizes, it adds them.
"""

import json
import logging
from dataclasses import astuple

from huggingface_hub.utils import disable_progress_bars

from dataloader.atomic_files import folder_lock, write_text
from routing_moe.config.console import reporting_errors
from routing_moe.config.finetune import FinetuneSettings, finetune_settings
from routing_moe.config.flags import command_line, parse
from routing_moe.finetuning.checks import check_finetuning, check_output_dir
from routing_moe.finetuning.grid import Grid, report, run_grid, start_checksums
from routing_moe.io.logs import log_to_file, start_logging
from routing_moe.io.memory import is_out_of_memory, memory_flags, naming_memory_flags
from routing_moe.io.run_folder import describe_run

log = logging.getLogger("routing_moe")


def main(argv: list[str] | None = None) -> int:
    values, grid = parse(FinetuneSettings, argv, __doc__), None
    with reporting_errors(lambda: what_is_kept(grid)) as result:
        settings = finetune_settings(values)
        if settings.quiet:
            disable_progress_bars()
        settings, gym, start = check_finetuning(settings, values)
        grid = Grid(settings, gym)
        grid.load(start_checksums(settings, start))
        start_logging()
        with naming_memory_flags(settings):
            result.exit_code = finetune(settings, grid, command_line(FinetuneSettings, argv))
    return result.exit_code


def finetune(settings: FinetuneSettings, grid: Grid, command: list[str]) -> int:
    """Runs the missing configurations. Returns 1 if any failed, after listing them, else 0."""
    with folder_lock(grid.folder):
        log_to_file(settings.output_dir, "log.txt")
        check_output_dir(settings)  # again, now that the folder is locked
        grid.load(grid.start)
        description = describe_run(settings.to_dict() | {"samples": grid.samples}, command)
        description |= {"start": grid.start, "configurations": list(map(astuple, grid.configurations))}
        write_text(grid.folder / "run.json", json.dumps(description, indent=1))
        failed = run_grid(settings, grid)
    all_scored = report(grid)
    if failed:
        log.error("%d configurations failed; the same command tries them again:", len(failed))
        for line in failed:
            log.error("  %s", line)
        if any(map(is_out_of_memory, failed.values())):
            log.error("out of memory: %s", memory_flags(settings))
    return 0 if all_scored and not failed else 1


def what_is_kept(grid: Grid | None) -> str:
    if grid is None:
        return "nothing was started"
    total = len(grid.wanted)
    return f"{total - len(grid.missing)} of {total} configurations are finished; the same command continues"
