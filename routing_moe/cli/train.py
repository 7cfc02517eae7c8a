"""Train a task-level mixture-of-experts on a gym, predict with it, or both.

    python -m routing_moe.cli.train --do_train --do_predict --initialize_from_vanilla \\
        --model facebook/bart-base --train_dir data/gym --custom_tasks_splits dataloader/splits/random.json \\
        --total_steps 30000 --eval_period 750 --output_dir models/moe
    python -m routing_moe.cli.train --do_train --resume ...     the same flags: continue after an interruption
    python -m routing_moe.cli.train --do_predict --predict_split test --train_dir data/gym \\
        --custom_tasks_splits dataloader/splits/random.json --output_dir models/moe
    accelerate launch --num_processes 2 -m routing_moe.cli.train ...              several GPUs, the same steps
"""

import dataclasses
import json
import logging
import sys
from contextlib import ExitStack, nullcontext
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import set_seed

from dataloader.encoding import encode
from routing_moe.checkpoints.folder import find_checkpoint
from routing_moe.checkpoints.start import checkpoint_to_resume, load_start
from routing_moe.cli.arguments import build_parser, parse_settings
from routing_moe.cli.console import flags_given, reporting_errors
from routing_moe.config.settings import Settings
from routing_moe.config.unused_flags import notes
from routing_moe.io.accelerator import make_accelerator
from routing_moe.io.files import write_text
from routing_moe.io.logs import log_to_file, start_logging, start_trackers
from routing_moe.io.main_process import main_process_lock
from routing_moe.io.memory import naming_memory_flags
from routing_moe.io.run_folder import describe_run
from routing_moe.optim.step import TrainingDiverged
from routing_moe.plots.route_map import plot_routes
from routing_moe.results.run_cost import equal_steps
from routing_moe.training.checks import Inputs, check_inputs, run_folder_faults
from routing_moe.training.prediction import run_prediction, task_files
from routing_moe.training.trainer import Training

log = logging.getLogger("routing_moe")


def main(argv: list[str] | None = None) -> int:
    settings = None
    with ExitStack() as at_exit, reporting_errors(lambda: what_is_kept(settings)) as result:
        settings = parse_settings(argv, __doc__)
        given = flags_given(build_parser(""), argv)
        inputs = check_inputs(settings, given)
        accelerator = make_accelerator(settings.mixed_precision)
        at_exit.callback(accelerator.end_training)
        start_logging(accelerator.is_main_process)
        for note in notes(settings, given):
            log.info("note: %s", note)
        try:
            with alone(settings, accelerator):
                train_and_predict(settings, inputs, accelerator, argv)
        except TrainingDiverged as error:
            log.error("training stopped: %s; %s. Try a lower learning rate.", error, what_is_kept(settings))
            result.exit_code = 1
    return result.exit_code


def alone(settings: Settings, accelerator: Accelerator):
    """Locks the run folder, unless --equal_flops is given, which writes nothing."""
    if settings.do_train and settings.equal_flops:
        return nullcontext()
    return main_process_lock(accelerator, settings.output_dir, lambda: run_folder_faults(settings))


def train_and_predict(settings: Settings, inputs: Inputs, accelerator: Accelerator, argv) -> None:
    if settings.do_train:
        command = None if argv is None else ["python", "-m", "routing_moe.cli.train", *argv]
        with naming_memory_flags(settings):
            run_training(settings, inputs, accelerator, command)
        if settings.equal_flops:  # the number is printed; there is no checkpoint
            return
        # The best checkpoint predicts, and nothing of the start matters any more.
        settings = dataclasses.replace(
            settings,
            do_train=False,
            initialize_from_vanilla=False,
            checkpoint=None,
            checkpoint_name="best",
            taskvecs=None,
        )
    if settings.do_predict:
        with naming_memory_flags(settings):
            run_prediction(settings, inputs, accelerator)


def what_is_kept(settings: Settings | None) -> str:
    if settings is None:
        return "nothing was begun"
    kept = find_checkpoint(Path(settings.output_dir) / "last")
    return f"last good checkpoint: {kept}" if kept else "no checkpoint had been written yet"


def run_training(settings: Settings, inputs: Inputs, accelerator: Accelerator, command) -> None:
    """Build the model and the data, train to the end. Writes nothing before all of it is found sound."""
    set_seed(settings.seed)
    model, tokenizer = load_start(settings, inputs.split)
    task_ids = {name: row for row, name in enumerate(model.config.task_names)}
    pool = inputs.train_gym.pool(inputs.split.train, "train", limit=settings.examples_per_file)
    examples = encode(pool, tokenizer, inputs.text_format, task_ids)
    dev_files = task_files(settings, inputs, inputs.split.train, "dev", model, tokenizer)
    model = model.to(accelerator.device)
    parts = (model, tokenizer, examples, dev_files, inputs.ontology)
    training = Training(*parts, settings, accelerator, plot_routes)
    if settings.equal_flops:
        print(equal_steps(training.stepper, training.total_steps, settings))
        return
    if checkpoint := checkpoint_to_resume(settings):
        training.load_state(checkpoint)
    accelerator.wait_for_everyone()
    start_trackers(settings, accelerator, first_step=training.state["step"])
    log_to_file(settings.output_dir, "log.txt", accelerator.is_main_process)
    note_skipped(inputs)
    if accelerator.is_main_process:
        description = json.dumps(describe_run(settings.to_dict(), command), indent=1)
        write_text(Path(settings.output_dir) / "run.json", description)
    training.run()


def note_skipped(inputs: Inputs) -> None:
    """How many malformed lines were left out."""
    for gym in {id(gym): gym for gym in (inputs.train_gym, inputs.predict_gym)}.values():
        if gym.n_skipped:
            log.info("left out %d malformed lines of %s", gym.n_skipped, gym.folder)


if __name__ == "__main__":
    sys.exit(main())
