"""Switch experts off, each alone or the top experts of a feature together, and see which tasks suffer.

    python -m routing_moe.cli.ablate models/moe                  every expert, dev files of the train tasks
    python -m routing_moe.cli.ablate models/moe --dry_run        how long would that take?
    python -m routing_moe.cli.ablate models/moe --experts none --features skill:negation category:qa --top 3
    accelerate launch --num_processes 4 -m routing_moe.cli.ablate models/moe     the same on several GPUs

Scores go to RUN/analysis/ablation/sets/ as they come; the same command goes on where it was interrupted. Then
tasks.csv, categories.csv, features.csv, ablation.md and pictures are written of all that the command names.
Exit code 3: nothing is wrong, but the model has no expert, or no feature is fit, to be looked at.
"""

import dataclasses
import logging
import sys
import zlib
from contextlib import ExitStack
from pathlib import Path

from accelerate import Accelerator

from routing_moe.analysis.ablation.job import AblationJob
from routing_moe.analysis.ablation.model import Bench
from routing_moe.analysis.ablation.plan import (
    AblationInputs,
    AblationSettings,
    Plan,
    check_ablation,
    make_plan,
)
from routing_moe.checkpoints.find import find_mixture
from routing_moe.checkpoints.start import load_start
from routing_moe.cli.ablate_arguments import parse_ablation
from routing_moe.cli.console import reporting_errors
from routing_moe.evaluation.task_files import decoding_of
from routing_moe.io.accelerator import make_accelerator
from routing_moe.io.logs import start_logging
from routing_moe.io.main_process import main_process_lock, on_main
from routing_moe.io.memory import naming_memory_flags
from routing_moe.report.ablation_files import write_results
from routing_moe.training.prediction import give_vectors, task_files

log = logging.getLogger("routing_moe")


def main(argv: list[str] | None = None) -> int:
    folder = None
    with ExitStack() as at_exit, reporting_errors(lambda: kept(folder)) as result:
        settings = parse_ablation(argv, __doc__)
        inputs = check_ablation(settings)
        accelerator = make_accelerator(settings.prediction.mixed_precision)
        at_exit.callback(accelerator.end_training)
        start_logging(accelerator.is_main_process)
        with naming_memory_flags(settings.prediction):
            bench = load_bench(settings, inputs, accelerator)
            job = AblationJob(bench, settings.output_dir, described(settings, bench))
            plan = make_plan(settings, inputs, job)
            with main_process_lock(accelerator, settings.output_dir):
                folder = settings.output_dir
                run(settings, inputs, job, plan)
    return result.exit_code


def run(settings: AblationSettings, inputs: AblationInputs, job: AblationJob, plan: Plan) -> None:
    """The main process scores with all experts first, and writes the tables when all processes are done."""
    accelerator = job.bench.accelerator
    log.info("%d tasks, %s files; scored with all experts first", len(job.bench.tasks), settings.part)
    on_main(accelerator, lambda: log.info(job.estimate(plan.sets)))
    if settings.dry_run:
        log.info("--dry_run: nothing is switched off")
        return
    job.run(plan.sets)
    on_main(accelerator, lambda: print(write_results(job, plan, settings, inputs)))


def load_bench(settings: AblationSettings, inputs: AblationInputs, accelerator: Accelerator) -> Bench:
    """The model of the run's checkpoint, with the files it is scored on."""
    prediction, run = settings.prediction, inputs.run
    model, tokenizer = load_start(prediction, run.split)
    model.to(accelerator.device)
    give_vectors(prediction, run, inputs.tasks, model, tokenizer, accelerator)
    limit = settings.max_examples
    files = task_files(prediction, run, inputs.tasks, settings.part, model, tokenizer, limit)
    decoding = decoding_of(prediction)
    return Bench(model, tokenizer, files, run.text_format, decoding, accelerator)


def described(settings: AblationSettings, bench: Bench) -> dict:
    """All that the scores of a set hang on, for a folder that is continued."""
    prediction = settings.prediction
    mixture = find_mixture(prediction.output_dir, prediction.checkpoint_name, "checkpoint_name")
    decoding = dataclasses.asdict(bench.decoding)
    # Only speed hangs on the first; the others are not used without random draws.
    decoding = {k: v for k, v in decoding.items() if k not in ("batch_size", "random_draws", "seed")}
    return {
        "part": settings.part,
        "predict_split": prediction.predict_split,
        "max_examples": settings.max_examples,
        "decoding": decoding,
        "mixed_precision": prediction.mixed_precision,
        "files": {file.sample: file.metric for file in bench.files},
        "data": bench.pool.encoded.fingerprint(),
        "options": zlib.crc32(repr(bench.pool.options).encode()),
        "routes": bench.fingerprint(),
        "checkpoint_name": prediction.checkpoint_name,
        "checkpoint": mixture.checksums(),
    }


def kept(folder: Path | None) -> str:
    if folder is None:
        return "nothing was begun"
    return f"what is finished is kept in {folder}/sets; the same command goes on"


if __name__ == "__main__":
    sys.exit(main())
