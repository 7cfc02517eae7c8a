"""`--do_predict`: scores the dev and test files of a section of the split with a checkpoint."""

import dataclasses
import json
import logging
import time
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator

from dataloader.atomic_files import write_text
from dataloader.errors import in_short
from dataloader.templates import has_templates
from routing_moe.checkpoints.find import SavedMixture, mixture_to_score
from routing_moe.checkpoints.folder import load_progress
from routing_moe.checkpoints.start import load_start
from routing_moe.checkpoints.tokenizer_files import load_tokenizer
from routing_moe.config.measures import further
from routing_moe.config.train import TrainSettings
from routing_moe.evaluation.predictions import baseline_scores, write_predictions
from routing_moe.evaluation.scored_files import decoding_of, load_task_files
from routing_moe.evaluation.scoring import predict
from routing_moe.io.hub import is_on_hub
from routing_moe.io.logs import log_to_file
from routing_moe.io.run_folder import describe_run
from routing_moe.results.scores import ScoresFile, dataset_scores, mean_score
from routing_moe.task_choice.choice import TaskChoice
from routing_moe.task_choice.choose import Chooser, vector_of, with_routes, with_vectors
from routing_moe.task_choice.learned import labelled_rows
from routing_moe.task_choice.texts import TEXTS_FILE, TextsOfModel
from routing_moe.training.checks import Inputs
from routing_moe.training.task_checks import resolver_of, trained_on

log = logging.getLogger(__name__)

NOTES = {  # {source of a task's vector or route: note}
    "random": "note: the task vectors of %s are random, unrelated to the tasks; --task_vector nearest uses "
    "the vector of the nearest task",
    "average": "note: no route and no vector of %s: all experts have equal weights",
}


def run_prediction(
    settings: TrainSettings, inputs: Inputs, accelerator: Accelerator, keep_texts: bool = False
) -> None:
    """Scores the dev and test files of a section; writes scores, predictions, and text vectors."""
    section, prefix = settings.predict_split, settings.prefix
    tasks = list(inputs.split.section(section))
    checkpoint = mixture_to_score(settings.start).place
    model, tokenizer = load_start(settings, inputs.split)
    model.to(accelerator.device)
    log_to_file(settings.output_dir, "eval_log.txt", accelerator.is_main_process)
    selected = {k: v for k, v in load_progress(checkpoint).items() if k in ("step", "temperature")}
    if settings.predict_temperature is not None and model.config.has_router:
        model.config.router_temperature = selected["temperature"] = settings.predict_temperature
    if selected:
        log.debug("%s: %s", checkpoint, ", ".join(f"{k} {round(v, 6)}" for k, v in selected.items()))
    if keep_texts and accelerator.is_main_process:
        keep_text_vectors(inputs, checkpoint, model.device, (model, tokenizer))
    choices = route_tasks(settings, inputs, tasks, model, tokenizer, accelerator)
    # Scores of another run's checkpoint go to this run's folder; the other folder is not changed.
    run, name = Path(settings.output_dir), checkpoint.name
    if settings.checkpoint and is_on_hub(settings.checkpoint):
        name = "best"  # else that of the commit
    loaded, most = (model, tokenizer), settings.predict_max_examples or settings.examples_per_file
    parts = {part: task_files(settings, inputs, tasks, part, *loaded, most) for part in ("dev", "test")}
    for part, files in parts.items():
        scores, *predicted = predict(model, tokenizer, files, decoding_of(settings), accelerator)
        if accelerator.is_main_process:
            scores = scores.join(baseline_scores(files, inputs.train_gym, inputs.predict_gym))
            if choices:
                scores["route"] = scores["task_prefix"].map(lambda task: choices[task].description)
                scores["vector_seen"] = scores["task_prefix"].map(lambda task: choices[task].seen)
            scores = scores.assign(**selected)
            written = ScoresFile(part, section, name, prefix)
            (run / written.settings_path).unlink(missing_ok=True)  # until the scores of both parts are there
            write_predictions(run / name / "predictions", prefix, files, *predicted)
            measured = {name.replace("_", " "): mean_score(scores, name) for name in further(scores)}
            means = "".join(f", {name} {mean:.4f}" for name, mean in measured.items())
            note = draws = ""
            if "draws" in scores:
                of_draws = scores.filter(like="draw_").groupby(scores["task_prefix"]).mean().mean()
                draws = f" (mean of {len(of_draws)} draws of all routes, std {of_draws.std():.4f})"
            if has_templates(tasks):
                datasets = dataset_scores(scores)
                write_text(run / written.datasets_path, datasets.to_csv())
                note = f" ({datasets['mean'].mean():.4f} over {len(datasets)} data sets, each counted once)"
            write_text(run / written.path, scores.to_csv())
            log.info(
                "%s tasks, %s files: mean score %.4f%s over %d files%s%s, in %s",
                section, part, mean_score(scores), means, len(files), draws, note, run / written.path,
            )  # fmt: skip
    if accelerator.is_main_process:
        description = json.dumps(describe_run(settings.to_dict()), indent=1)
        write_text(run / written.settings_path, description)


def keep_text_vectors(
    inputs: Inputs, checkpoint: Path, device: torch.device, loaded: tuple | None = None
) -> None:
    """Writes vectors of the train tasks' texts, by which new texts find their nearest task, if needed."""
    start = SavedMixture(checkpoint)
    if not start.config.routes_by_task or (checkpoint / TEXTS_FILE).is_file():
        return
    model, tokenizer = loaded or (
        start.load().eval().to(device),
        load_tokenizer(checkpoint, start.config.vocab_size),
    )
    source, started = dataclasses.replace(inputs.texts, folder=None), time.monotonic()
    found = TextsOfModel(source, model, tokenizer, start, keep=True).candidates(inputs.split.train)
    seconds = time.monotonic() - started
    log.debug("text vectors of %d tasks in %.1f s: %s", len(found), seconds, checkpoint / TEXTS_FILE)


def route_tasks(
    settings: TrainSettings, inputs: Inputs, tasks: list[str], model, tokenizer, accelerator
) -> dict[str, TaskChoice]:
    """Gives every task its route or vector; returns {task: choice}, {} if all are just those of training."""
    start, config = settings.start, model.config
    trained, is_main = trained_on(config, inputs.split), accelerator.is_main_process
    resolver = resolver_of(settings, config, inputs.split)
    if resolver is None:
        return {}
    by_vector = resolver.kind.reads_vectors and not resolver.by_loss
    texts = TextsOfModel(inputs.texts, model, tokenizer, mixture_to_score(start), quiet=not is_main)
    rows = partial(labelled_rows, inputs.texts, tokenizer=tokenizer)
    choices = Chooser(model, resolver, texts, rows, accelerator).choose_all(tasks)
    # Not just what a trained task has in the checkpoint.
    kept = ("own", "stored", "random")
    notable = [c for c in choices.values() if c.task not in trained or c.source not in kept]
    for c in notable:
        log.debug("%s: %s; has seen of the task: %s", c.task, c.description, c.seen)
    unread = [task for task, choice in choices.items() if choice.source != "given"]
    if by_vector and start.vectors and unread and is_main:
        log.info("note: no vector of --taskvecs is used for %s: trained on, or not in it", in_short(unread))
    for source, note in NOTES.items() if is_main else ():
        if of_source := sorted(task for task, choice in choices.items() if choice.source == source):
            log.info(note, in_short(of_source))
    if not by_vector and notable:
        with_routes(model, choices.values())
    elif by_vector:
        chosen = [choice for choice in choices.values() if choice.source in ("given", "nearest")]
        with_vectors(model, {choice.task: vector_of(model, choice) for choice in chosen})
    return choices if notable else {}


def task_files(settings: TrainSettings, inputs: Inputs, tasks, part: str, model, tokenizer, most: int | None):
    """Returns the tasks' files of a part, as they are scored. most: examples of each; None: all."""
    return load_task_files(
        inputs.predict_gym,
        tasks,
        part,
        settings.predict_samples,
        tokenizer,
        inputs.text_format,
        {name: row for row, name in enumerate(model.config.task_names)},
        limit=most,
        with_options=settings.reads_options,
        train_gyms=(inputs.train_gym, inputs.predict_gym),
    )
