"""Starts the ablation of a run: its model, the files that it is scored on, and what the scores depend on."""

import dataclasses
import logging
import zlib

from accelerate import Accelerator

from routing_moe.analysis.ablation.checks import AblationInputs
from routing_moe.analysis.ablation.job import AblationJob
from routing_moe.analysis.ablation.model import Evaluator
from routing_moe.checkpoints.find import mixture_to_score
from routing_moe.checkpoints.start import load_start
from routing_moe.config.ablate import AblationSettings
from routing_moe.evaluation.pool import Pool
from routing_moe.evaluation.scored_files import decoding_of
from routing_moe.training.prediction import route_tasks, task_files

log = logging.getLogger("routing_moe")


def make_job(settings: AblationSettings, inputs: AblationInputs, accelerator: Accelerator) -> AblationJob:
    """Returns the job of the run's checkpoint in --output_dir. Raises InputError if scores there differ."""
    prediction, run = settings.prediction, inputs.run
    model, tokenizer = load_start(prediction, run.split)
    model.to(accelerator.device)
    route_tasks(prediction.start, prediction.evaluation, run, inputs.tasks, model, tokenizer, accelerator)
    most = settings.max_examples or prediction.examples_per_file
    evaluation = dataclasses.replace(prediction.evaluation, most=most)
    files = task_files(evaluation, run, inputs.tasks, settings.part, model, tokenizer)
    evaluator = Evaluator(model, tokenizer, files, decoding_of(prediction), accelerator)
    log.info("%d tasks, %s files; scored with all experts first", len(evaluator.tasks), settings.part)
    return AblationJob(evaluator, settings.output_dir, described(settings, evaluator))


def described(settings: AblationSettings, evaluator: Evaluator) -> dict:
    """Returns all that the scores of a set depend on, which must not change when a folder is continued."""
    prediction, pool = settings.prediction, Pool(evaluator.files)
    decoding = dataclasses.asdict(evaluator.decoding)
    for name in ("batch_size", "random_draws", "seed"):  # only the speed, and what random draws use
        del decoding[name]
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
        "checkpoint": mixture_to_score(prediction.start).checksums(),
    }
