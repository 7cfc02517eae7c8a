"""Ablate experts, each alone or the top experts of a feature together; report the drop of every task's score.

    routing-moe ablate models/moe                  every expert, dev files of the train tasks
    routing-moe ablate models/moe --dry_run        report how long that would take
    routing-moe ablate models/moe --experts none --features skill:negation category:qa --top 3
    accelerate launch --num_processes 4 -m routing_moe.cli.ablate models/moe     the same on several GPUs

Scores are written to RUN/analysis/ablation/sets/ one by one; the same command continues an interrupted one.
At the end tasks.csv, categories.csv, features.csv, ablation.md and pictures of all named sets are written.
Exit code 3: there is nothing to ablate: the model has no experts, or no feature can be compared.
"""

import sys
from contextlib import ExitStack
from pathlib import Path

from routing_moe.analysis.ablation.checks import AblationInputs, check_ablation
from routing_moe.cli.console import reporting_errors
from routing_moe.config.ablate import AblationSettings, ablation_settings
from routing_moe.config.flags import parse


def main(argv: list[str] | None = None) -> int:
    values, started = parse(AblationSettings, argv, __doc__), []
    with reporting_errors(lambda: what_is_kept(*started)) as result:
        settings = ablation_settings(values)
        run(settings, check_ablation(settings), started)
    return result.exit_code


def run(settings: AblationSettings, inputs: AblationInputs, started: list[Path]) -> None:
    """Ablates experts. started: gets the output folder when work in it starts."""
    # Torch is imported here, after the checks: it takes seconds.
    from routing_moe.analysis.ablation.job import make_job
    from routing_moe.analysis.ablation.plan import make_plan
    from routing_moe.io.accelerator import make_accelerator
    from routing_moe.io.logs import start_logging
    from routing_moe.io.main_process import main_process_lock, on_main
    from routing_moe.io.memory import naming_memory_flags
    from routing_moe.report.ablation_files import write_results

    accelerator = make_accelerator(settings.prediction.mixed_precision)
    with ExitStack() as at_exit, naming_memory_flags(settings.prediction):
        at_exit.callback(accelerator.end_training)
        start_logging(accelerator.is_main_process)
        job = make_job(settings, inputs, accelerator)
        plan = make_plan(settings, inputs, job)
        with main_process_lock(accelerator, settings.output_dir):
            started.append(settings.output_dir)
            job.run(plan.sets, settings.dry_run)
            if not settings.dry_run:
                on_main(accelerator, lambda: print(write_results(job, plan, settings, inputs)))


def what_is_kept(folder: Path | None = None) -> str:
    if folder is None:
        return "nothing was started"
    return f"finished scores are kept in {folder}/sets; the same command continues"


if __name__ == "__main__":
    sys.exit(main())
