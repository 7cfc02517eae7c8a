"""Switch experts off, each alone or the top experts of a feature together, and see which tasks suffer.

    python -m routing_moe.cli.ablate models/moe                  every expert, dev files of the train tasks
    python -m routing_moe.cli.ablate models/moe --dry_run        how long would that take?
    python -m routing_moe.cli.ablate models/moe --experts none --features skill:negation category:qa --top 3
    accelerate launch --num_processes 4 -m routing_moe.cli.ablate models/moe     the same on several GPUs

Scores go to RUN/analysis/ablation/sets/ as they come; the same command goes on where it was interrupted. Then
tasks.csv, categories.csv, features.csv, ablation.md and pictures are written of all that the command names.
Exit code 3: nothing is wrong, but the model has no expert, or no feature is fit, to be looked at.
"""

import sys
from contextlib import ExitStack
from pathlib import Path

from routing_moe.analysis.ablation.checks import AblationInputs, check_ablation
from routing_moe.cli.console import reporting_errors
from routing_moe.config.ablate import AblationSettings, ablation_settings
from routing_moe.config.flags import parse


def main(argv: list[str] | None = None) -> int:
    given, begun = parse(AblationSettings, argv, __doc__), []
    with reporting_errors(lambda: kept(*begun)) as result:
        settings = ablation_settings(given)
        run(settings, check_ablation(settings), begun)
    return result.exit_code


def run(settings: AblationSettings, inputs: AblationInputs, begun: list[Path]) -> None:
    """Ablates experts. begun: gets the output folder once its work begins."""
    # Torch is imported here, after the checks: it takes seconds.
    from routing_moe.analysis.ablation.job import AblationJob
    from routing_moe.analysis.ablation.plan import make_plan
    from routing_moe.io.accelerator import make_accelerator
    from routing_moe.io.logs import start_logging
    from routing_moe.io.main_process import main_process_lock
    from routing_moe.io.memory import naming_memory_flags
    from routing_moe.report.ablation_run import described, load_evaluator, run_job

    accelerator = make_accelerator(settings.prediction.mixed_precision)
    with ExitStack() as at_exit, naming_memory_flags(settings.prediction):
        at_exit.callback(accelerator.end_training)
        start_logging(accelerator.is_main_process)
        evaluator = load_evaluator(settings, inputs, accelerator)
        job = AblationJob(evaluator, settings.output_dir, described(settings, evaluator))
        plan = make_plan(settings, inputs, job)
        with main_process_lock(accelerator, settings.output_dir):
            begun.append(settings.output_dir)
            run_job(settings, inputs, job, plan)


def kept(folder: Path | None = None) -> str:
    if folder is None:
        return "nothing was begun"
    return f"what is finished is kept in {folder}/sets; the same command goes on"


if __name__ == "__main__":
    sys.exit(main())
