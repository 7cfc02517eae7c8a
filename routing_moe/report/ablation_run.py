"""Scores the sets of experts of an ablation, and writes its results."""

import dataclasses
import logging
import zlib

from accelerate import Accelerator

from routing_moe.analysis.ablation.checks import AblationInputs
from routing_moe.analysis.ablation.job import AblationJob
from routing_moe.analysis.ablation.model import Evaluator
from routing_moe.analysis.ablation.plan import Plan
from routing_moe.checkpoints.find import mixture_to_score
from routing_moe.checkpoints.start import load_start
from routing_moe.config.ablate import AblationSettings
from routing_moe.evaluation.pool import Pool
from routing_moe.evaluation.scored_files import decoding_of
from routing_moe.io.main_process import on_main
from routing_moe.report.ablation_files import write_results
from routing_moe.training.prediction import route_tasks, task_files

log = logging.getLogger("routing_moe")


def run_job(settings: AblationSettings, inputs: AblationInputs, job: AblationJob, plan: Plan) -> None:
    """Scores all sets in all processes. The main process scores with all experts first, and writes tables."""
    accelerator = job.evaluator.accelerator
    log.info("%d tasks, %s files; scored with all experts first", len(job.evaluator.tasks), settings.part)
    on_main(accelerator, lambda: log.info(job.estimate(plan.sets)))
    if settings.dry_run:
        log.info("--dry_run: no expert is ablated")
        return
    job.run(plan.sets)
    on_main(accelerator, lambda: print(write_results(job, plan, settings, inputs)))


def load_evaluator(settings: AblationSettings, inputs: AblationInputs, accelerator: Accelerator) -> Evaluator:
    """Returns an evaluator with the model of the run's checkpoint and the files that it is scored on."""
    prediction, run = settings.prediction, inputs.run
    model, tokenizer = load_start(prediction, run.split)
    model.to(accelerator.device)
    route_tasks(prediction.start, prediction.evaluation, run, inputs.tasks, model, tokenizer, accelerator)
    most = settings.max_examples or prediction.examples_per_file
    evaluation = dataclasses.replace(prediction.evaluation, most=most)
    files = task_files(evaluation, run, inputs.tasks, settings.part, model, tokenizer)
    decoding = decoding_of(prediction)
    return Evaluator(model, tokenizer, files, decoding, accelerator)


def described(settings: AblationSettings, evaluator: Evaluator) -> dict:
    """Returns all that the scores of a set depend on, which must not change when a folder is continued."""
    prediction, pool = settings.prediction, Pool(evaluator.files)
    mixture = mixture_to_score(prediction.start)
    decoding = dataclasses.asdict(evaluator.decoding)
    # batch_size only changes the speed; the others are only used with random draws.
    decoding = {k: v for k, v in decoding.items() if k not in ("batch_size", "random_draws", "seed")}
    return {
        "part": settings.part,
        "predict_split": prediction.predict_split,
        "max_examples": settings.max_examples,
        "decoding": decoding,
        "mixed_precision": prediction.mixed_precision,
        "files": {file.sample: file.metric for file in evaluator.files},
        "data": pool.encoded.fingerprint(),
        "options": zlib.crc32(repr(pool.options if any(pool.options) else None).encode()),
        "routes": evaluator.fingerprint(),
        "checkpoint_name": prediction.checkpoint_name,
        "checkpoint": mixture.checksums(),
    }
