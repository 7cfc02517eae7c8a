"""`--do_predict`: scores the dev and test files of a section of the split with a checkpoint."""

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
from accelerate import Accelerator

from dataloader.atomic_files import write_text
from dataloader.errors import InputError, in_short
from dataloader.task_splits import Split
from dataloader.templates import has_templates
from routing_moe.checkpoints.find import checkpoint_to_start_from
from routing_moe.checkpoints.folder import load_progress
from routing_moe.checkpoints.start import load_start
from routing_moe.config.train import TrainSettings
from routing_moe.evaluation.scored_files import decoding_of, described_scoring, load_task_files
from routing_moe.evaluation.scoring import (
    answer,
    mean_score,
    scores_table,
    spread_over_draws,
    texts_and_scores,
)
from routing_moe.evaluation.unseen_routes import RouteClusters, choose_routes, with_routes
from routing_moe.evaluation.unseen_tasks import choose_vectors, with_vectors
from routing_moe.io.logs import log_to_file
from routing_moe.io.run_folder import describe_run
from routing_moe.model.task_vectors import UNKNOWN, load_meta, load_task_vectors, seen_by
from routing_moe.results.scores import ScoresFile, constant_scores, write_predictions
from routing_moe.results.templates import dataset_scores
from routing_moe.training.checks import Inputs
from routing_moe.training.start_checks import trained_on
from routing_moe.training.task_routes import file_routes, names_file

log = logging.getLogger(__name__)


def run_prediction(settings: TrainSettings, inputs: Inputs, accelerator: Accelerator) -> None:
    """Scores the dev and test files of a section of the split; writes scores and predictions."""
    tasks = list(inputs.split.section(settings.predict_split))
    model, tokenizer = load_start(settings, inputs.split)
    model.to(accelerator.device)
    log_to_file(settings.output_dir, "eval_log.txt", accelerator.is_main_process)
    if settings.predict_temperature is not None:
        model.config.router_temperature = settings.predict_temperature
    checkpoint = checkpoint_to_start_from(settings)
    selected = {k: v for k, v in load_progress(checkpoint).items() if k in ("step", "temperature")}
    if settings.predict_temperature is not None:
        selected["temperature"] = settings.predict_temperature
    if selected:
        log.info("%s: %s", checkpoint, ", ".join(f"{k} {v:.4g}" for k, v in selected.items()))
    choices = route_tasks(settings, inputs, tasks, model, tokenizer, accelerator)
    # Scores of another run's checkpoint go to this run's folder; the other folder is not changed.
    run = Path(settings.output_dir)
    most = settings.predict_max_examples
    parts = {
        part: task_files(settings, inputs, tasks, part, model, tokenizer, most) for part in ("dev", "test")
    }
    if settings.scoring == "rank":
        log.info("%s section: %s", settings.predict_split, described_scoring(parts["dev"] + parts["test"]))
    for part, files in parts.items():
        answers = answer(model, tokenizer, files, decoding_of(settings), accelerator)
        if accelerator.is_main_process:
            scores = scores_table(model, files, answers, decoding_of(settings))
            scores["constant"] = constant_scores(files, inputs.train_gym, inputs.predict_gym)
            if choices:
                scores["route"] = scores["task_prefix"].map(lambda task: choices[task].described())
                scores["vector_seen"] = scores["task_prefix"].map(lambda task: choices[task].seen)
            scores = scores.assign(**selected)
            written = ScoresFile(part, settings.predict_split, checkpoint.name, settings.prefix)
            predicted = run / checkpoint.name / "predictions"
            write_predictions(predicted, settings.prefix, files, *texts_and_scores(answers))
            datasets = write_datasets(run / written.datasets_path, scores) if has_templates(tasks) else ""
            write_text(run / written.path, scores.to_csv())
            log.info(
                "%s tasks, %s files: mean score %.4f over %d files%s%s, in %s",
                settings.predict_split, part, mean_score(scores), len(files), of_draws(scores), datasets,
                run / written.path,
            )  # fmt: skip
    if accelerator.is_main_process:
        description = json.dumps(describe_run(settings.to_dict()), indent=1)
        write_text(run / written.settings_path, description)


def route_tasks(
    settings: TrainSettings, inputs: Inputs, tasks: list[str], model, tokenizer, accelerator
) -> dict:
    """Gives every task its route or the vector that its route is computed from; logs each choice.

    Returns {task: choice} with the source of its route in words, and what the choice has seen of the task; {}
    if all tasks are those of training, or their routes do not depend on them.
    """
    from_file = settings.route_source == "fixed" and settings.task_routes and not settings.do_train
    if from_file or model.config.given_routes:
        return give_routes(settings, inputs, tasks, model, accelerator.is_main_process)
    return give_vectors(settings, inputs, tasks, model, tokenizer, accelerator)


def give_routes(settings: TrainSettings, inputs: Inputs, tasks: list[str], model, is_main: bool) -> dict:
    """Gives tasks the routes of --task_routes, their own, that of their nearest cluster, or equal weights.

    Returns {task: RouteChoice}; {} if all are the routes of tasks that the model was trained on. Raises
    InputError if routes of a file would overwrite scores along other routes.
    """
    trained = trained_on(model.config.to_dict(), inputs.split)
    given = given_matrices(settings, inputs.split, model.config)
    vectors = given_vectors(settings, tasks, trained)
    seen = seen_by(load_meta(settings.taskvecs)) if vectors else UNKNOWN
    clusters = RouteClusters(model)
    choices = choose_routes(clusters, tasks, given, vectors, seen)
    own = clusters.own
    replaced = [task for task in given if task in own and not np.allclose(own[task], given[task])]
    if replaced and not settings.prefix:
        raise InputError(
            f"--task_routes {settings.task_routes} has other routes of {in_short(replaced)} than the "
            "checkpoint; to score it with them give --prefix, so that its own scores are not overwritten"
        )
    if all(choice.source == "own" and choice.task in trained for choice in choices):
        return {}
    for choice in choices if is_main else ():
        log.info("%s: %s; has seen of the task: %s", choice.task, choice.described(), choice.seen)
    if (without := [choice.task for choice in choices if choice.source == "average"]) and is_main:
        log.info("note: no route and no vector of %s: all experts have equal weights", in_short(without))
    with_routes(model, choices)
    return {choice.task: choice for choice in choices}


def given_matrices(settings: TrainSettings, split: Split, config) -> dict[str, np.ndarray]:
    """Returns {task: route (L, E)} of the file `--task_routes`, {} without a file."""
    if not settings.task_routes or not names_file(settings.task_routes):
        return {}
    routes = file_routes(settings, split)
    matrices = routes.matrices(config.encoder_layers, config.decoder_layers, config.num_experts)
    return dict(zip(routes.tasks, matrices, strict=True))


def give_vectors(
    settings: TrainSettings, inputs: Inputs, tasks: list[str], model, tokenizer, accelerator
) -> dict:
    """Gives tasks that need it a vector of --taskvecs, or that of their nearest task; logs each choice.

    Returns {task: VectorChoice} for all tasks; {} without a router, or if the model was trained on all tasks
    and they read their own vectors.
    """
    if not model.config.has_router:
        return {}
    source, trained, is_main = settings.task_vector, inputs.split.train, accelerator.is_main_process
    trained_before = trained_on(model.config.to_dict(), inputs.split)
    given = given_vectors(settings, tasks, trained_before)
    given_seen = seen_by(load_meta(settings.taskvecs)) if given else UNKNOWN
    if settings.taskvecs and is_main and (own := [task for task in tasks if task not in given]):
        log.info("note: no vector of --taskvecs is used for %s: trained on, or not in it", in_short(own))
    choices = choose_vectors(
        model, tokenizer, tasks, source, trained, inputs.texts, not is_main, given, given_seen
    )
    found = [choice for choice in choices if choice.source != "stored"]
    left_random = set(tasks) & set(model.config.random_vectors) - {choice.task for choice in found}
    notable = [choice for choice in choices if choice in found or choice.task not in trained_before]
    for choice in notable if is_main else ():
        log.info("%s: %s; has seen of the task: %s", choice.task, choice.described(), choice.seen)
    if left_random and is_main:
        log.info(
            "note: the task vectors of %s are random, unrelated to the tasks; "
            "--task_vector nearest uses the vector of the nearest task",
            in_short(sorted(left_random)),
        )
    if found:
        with_vectors(model, {choice.task: choice.vector_D for choice in found})
    return {choice.task: choice for choice in choices} if notable else {}


def given_vectors(settings: TrainSettings, tasks: list[str], trained: set[str]) -> dict:
    """Returns {task: vector (D,)} of `--taskvecs` for the tasks that were not trained on."""
    if not settings.taskvecs or trained.issuperset(tasks):
        return {}
    names, vectors_ND = load_task_vectors(settings.taskvecs)
    vectors = dict(zip(names, vectors_ND, strict=True))
    return {task: vectors[task] for task in tasks if task in vectors and task not in trained}


def write_datasets(path: Path, scores: pd.DataFrame) -> str:
    """Writes the scores per data set over its templates; returns a note on their mean."""
    datasets = dataset_scores(scores)
    write_text(path, datasets.to_csv())
    return f" ({datasets['mean'].mean():.4f} over {len(datasets)} data sets, each counted once)"


def of_draws(scores: pd.DataFrame) -> str:
    """Returns a note on the draws of random routes behind the scores, "" for other routes."""
    if "draws" not in scores:
        return ""
    return f" (mean of {scores['draws'][0]} draws of all routes, std {spread_over_draws(scores):.4f})"


def task_files(settings: TrainSettings, inputs: Inputs, tasks, part: str, model, tokenizer, limit=None):
    """Returns the tasks' files of a part as the settings score them. limit: maximum examples per file."""
    return load_task_files(
        inputs.predict_gym,
        tasks,
        part,
        settings.predict_samples,
        tokenizer,
        inputs.text_format,
        {name: row for row, name in enumerate(model.config.task_names)},
        limit=limit or settings.examples_per_file,
        scoring=settings.scoring,
        train_gyms=(inputs.train_gym, inputs.predict_gym),
    )
