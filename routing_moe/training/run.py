"""Trains and predicts as the settings of a command say."""

import json
import logging
import shlex
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from accelerate import Accelerator
from accelerate.utils import set_seed

from dataloader.atomic_files import write_text
from dataloader.encoded import EncodedExamples
from dataloader.encoding import encode
from routing_moe.checkpoints.find import checkpoint_to_resume
from routing_moe.checkpoints.start import load_start
from routing_moe.config.shared import text_settings
from routing_moe.config.train import TrainSettings
from routing_moe.evaluation.route_losses import losses_of_tasks
from routing_moe.io.logs import log_to_file
from routing_moe.io.memory import naming_memory_flags
from routing_moe.io.run_folder import CLUSTERS_FILE, describe_run, described_part
from routing_moe.io.trackers import start_trackers
from routing_moe.model.counted_flops import rows_flops
from routing_moe.task_choice.contested import Contested
from routing_moe.training.checks import Inputs, checksums_of, is_trained
from routing_moe.training.cost import equal_steps
from routing_moe.training.prediction import keep_text_vectors, run_prediction, task_files
from routing_moe.training.trainer import Training, check_epochs

log = logging.getLogger("routing_moe")


def train_and_predict(
    settings: TrainSettings, inputs: Inputs, accelerator: Accelerator, command, draw_routes: Callable
) -> None:
    """Runs --do_train and --do_predict. command: for run.json. draw_routes: as of `Training`."""
    trained = settings.do_train
    if trained:
        if not is_trained(settings):
            with naming_memory_flags(settings):
                has_checkpoint = run_training(settings, inputs, accelerator, command, draw_routes)
            if not has_checkpoint:
                return
        settings = settings.scored
    with naming_memory_flags(settings):
        if settings.do_predict:
            run_prediction(settings, inputs, accelerator, trained and not settings.no_text_vectors)
        elif accelerator.is_main_process and not settings.no_text_vectors:
            keep_text_vectors(inputs, Path(settings.output_dir) / "best", accelerator.device)
    if trained:
        run = shlex.quote(settings.output_dir)
        of_routes = f"; bash example_scripts/understand.sh {run}" if inputs.config.num_experts > 1 else ""
        if of_routes and settings.plugin:
            of_routes += f" --plugin {shlex.quote(settings.plugin)}"
        scores = "show-scores" if settings.do_predict else "train --do_predict --output_dir"
        log.info("next: routing-moe %s %s%s", scores, run, of_routes)


def run_training(
    settings: TrainSettings, inputs: Inputs, accelerator: Accelerator, command, draw_routes: Callable
) -> bool:
    """Trains to the end; returns whether there is a checkpoint. Writes nothing before all is ready."""
    pool = inputs.train_gym.pool(inputs.split.train, "train", limit=settings.examples_per_file)
    checkpoint = checkpoint_to_resume(settings)
    if checkpoint is None:
        check_epochs(settings, len(pool))
    set_seed(settings.seed)
    model, tokenizer = load_start(settings, inputs.split, inputs.routes)
    model.config.text_settings = text_settings(settings)
    templates = inputs.train_gym.templates(inputs.split.train)
    model.config.input_templates = (model.config.input_templates or {}) | templates
    task_ids = {name: row for row, name in enumerate(model.config.task_names)}
    examples = encode(pool, tokenizer, inputs.text_format, task_ids)
    limits = filter(None, (settings.eval_max_examples, settings.examples_per_file))
    most = min(limits, default=None)
    dev_files = task_files(settings, inputs, inputs.split.train, "dev", model, tokenizer, most)
    model = model.to(accelerator.device)
    contested = None
    if settings.contested_above is not None:
        contested = Contested.load(Path(settings.output_dir)) if checkpoint else None
        contested = contested or contested_rows(model, examples, settings, accelerator)
        examples = contested.chosen_from(examples, model.config.task_names)
        if contested.are_few:
            log.info("%s; nothing is trained", contested.described())
            if accelerator.is_main_process:
                write_start(settings, inputs, command, contested)
            return False
        check_epochs(settings, len(examples))
    data = examples, dev_files, inputs.ontology
    training = Training(model, tokenizer, *data, settings, accelerator, draw_routes)
    training.scoring_flops = contested.scoring_flops if contested else 0
    if checkpoint:
        training.load_state(checkpoint)
    elif settings.equal_flops:
        training.set_total_steps(equal_steps(training.stepper, settings, training.scoring_flops))
        settings = training.settings
    accelerator.wait_for_everyone()
    start_trackers(settings, accelerator, first_step=training.state["step"])
    log_to_file(settings.output_dir, "log.txt", accelerator.is_main_process)
    for gym in {id(gym): gym for gym in (inputs.train_gym, inputs.predict_gym)}.values():
        if gym.n_skipped:
            log.info("left out %d malformed lines of %s", gym.n_skipped, gym.folder)
    notes = inputs.routes.notes if inputs.routes else ()
    for note in [*notes, *([contested.described()] if contested else [])]:
        log.info(note)
    if accelerator.is_main_process:
        write_start(settings, inputs, command, contested, resumed=checkpoint is not None)
    training.run()
    return True


def contested_rows(model, examples: EncodedExamples, settings: TrainSettings, accelerator) -> Contested:
    """Returns the rows of --contested_above, by the losses of the model."""
    names = model.config.task_names
    routes_NLE = model.eval().routes_for(names)
    losses_R = losses_of_tasks(model, examples, routes_NLE, accelerator, "losses of train rows")
    flops = rows_flops(model, examples)
    return Contested.of_losses(losses_R, examples, names, settings.contested_above, flops)


def write_start(
    settings: TrainSettings, inputs: Inputs, command, contested: Contested | None, resumed: bool = False
) -> None:
    """Writes run.json, contested rows, table of clusters. resumed: the model is that of an earlier call."""
    folder, description = Path(settings.output_dir), describe_run(settings.to_dict(), command)
    description["files"] = checksums_of(settings)
    if resumed:
        description["hub"] = described_part(folder, "hub")
    write_text(folder / "run.json", json.dumps(description, indent=1))
    if contested:
        contested.write(folder)
    if inputs.routes and inputs.routes.clusters:  # a resumed run has the table already
        table = pd.DataFrame([inputs.routes.clusters]).round(4)
        write_text(folder / CLUSTERS_FILE, table.to_csv(index=False))
