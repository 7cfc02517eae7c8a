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
import os
import sys
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import set_seed
from transformers.utils import logging as library_logging

from dataloader.encoding import encode
from dataloader.errors import InputError
from routing_moe.checks import Inputs, check_inputs
from routing_moe.cli.arguments import parse_settings
from routing_moe.evaluation import load_task_files, mean_score, predict
from routing_moe.results import write_predictions
from routing_moe.run_state import describe_run, find_checkpoint, write_text
from routing_moe.settings import Settings
from routing_moe.starting import checkpoint_to_resume, checkpoint_to_start_from, load_start
from routing_moe.stepping import TrainingDiverged
from routing_moe.tracking import CsvTracker
from routing_moe.training import Training, decoding_of

log = logging.getLogger("routing_moe")


def main(argv: list[str] | None = None) -> int:
    settings = parse_settings(argv, __doc__)
    if settings.predict_dir is None:
        settings = dataclasses.replace(settings, predict_dir=settings.train_dir)
    try:
        inputs = check_inputs(settings)
        accelerator = Accelerator(mixed_precision=settings.mixed_precision)
        start_logging(accelerator)
        if settings.do_train:
            command = None if argv is None else ["python", "-m", "routing_moe.cli.train", *argv]
            run_training(settings, inputs, accelerator, command)
            # The best checkpoint predicts, and nothing of the start matters any more.
            settings = dataclasses.replace(
                settings,
                do_train=False,
                initialize_from_vanilla=False,
                checkpoint=None,
                checkpoint_name="best",
            )
        if settings.do_predict:
            run_prediction(settings, inputs, accelerator)
        accelerator.end_training()
    except InputError as error:
        if os.environ.get("LOCAL_RANK", "0") == "0":  # all processes find the same faults
            print("\n".join(f"error: {fault}" for fault in error.faults), file=sys.stderr)
        return 2
    except TrainingDiverged as error:
        log.error("training stopped: %s; %s. Try a lower learning rate.", error, what_is_kept(settings))
        return 1
    except KeyboardInterrupt:
        print(f"interrupted; {what_is_kept(settings)}", file=sys.stderr)
        return 130
    return 0


def what_is_kept(settings: Settings) -> str:
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
    training = Training(
        model.to(accelerator.device), tokenizer, examples, dev_files, inputs.ontology, settings, accelerator
    )
    if checkpoint := checkpoint_to_resume(settings):
        training.load_state(checkpoint)
    accelerator.wait_for_everyone()
    log_to_file(settings, accelerator, "log.txt")
    if accelerator.is_main_process:
        description = json.dumps(describe_run(settings.to_dict(), command), indent=1)
        write_text(Path(settings.output_dir) / "run.json", description)
    start_trackers(settings, accelerator, first_step=training.state["step"])
    training.run()


def run_prediction(settings: Settings, inputs: Inputs, accelerator: Accelerator) -> None:
    """Score the dev and test files of a section of the split; write scores and predictions."""
    tasks = list(inputs.split.section(settings.predict_split))
    model, tokenizer = load_start(settings, inputs.split)
    model.to(accelerator.device)
    log_to_file(settings, accelerator, "eval_log.txt")
    if settings.predict_temperature is not None:
        model.config.router_temperature = settings.predict_temperature
    checkpoint = checkpoint_to_start_from(settings)
    for part in ("dev", "test"):
        files = task_files(settings, inputs, tasks, part, model, tokenizer)
        scores, predictions = predict(model, tokenizer, files, decoding_of(settings), accelerator)
        if accelerator.is_main_process:
            section = "" if settings.predict_split == "train" else f"{settings.predict_split}_tasks-"
            name = f"{settings.prefix}eval-{section}{part}-performance.csv"
            write_text(checkpoint / name, scores.to_csv())
            write_predictions(checkpoint / "predictions", settings.prefix, files, predictions)
            log.info(
                "%s tasks, %s files: mean score %.4f over %d files, in %s",
                settings.predict_split, part, mean_score(scores), len(files), checkpoint / name,
            )  # fmt: skip


def task_files(settings: Settings, inputs: Inputs, tasks, part: str, model, tokenizer):
    return load_task_files(
        inputs.predict_gym,
        tasks,
        part,
        settings.predict_samples,
        tokenizer,
        inputs.text_format,
        {name: row for row, name in enumerate(model.config.task_names)},
        limit=settings.examples_per_file,
    )


def start_logging(accelerator: Accelerator) -> None:
    """Messages of the main process to the terminal."""
    library_logging.set_verbosity_error()
    library_logging.disable_progress_bar()
    log.setLevel(logging.INFO if accelerator.is_main_process else logging.ERROR)
    log.propagate = False
    for handler in log.handlers[:]:
        handler.close()
        log.removeHandler(handler)
    add_log_handler(logging.StreamHandler())


def log_to_file(settings: Settings, accelerator: Accelerator, name: str) -> None:
    """From here on also to a file of the run folder, which is made if need be; one file is enough."""
    folder = Path(settings.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    has_file = any(isinstance(handler, logging.FileHandler) for handler in log.handlers)
    if accelerator.is_main_process and not has_file:
        add_log_handler(logging.FileHandler(folder / name, encoding="utf-8"))


def add_log_handler(handler: logging.Handler) -> None:
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    log.addHandler(handler)


def start_trackers(settings: Settings, accelerator: Accelerator, first_step: int) -> None:
    trackers = [CsvTracker(settings.output_dir, first_step)]
    if settings.log_with != "csv":
        trackers.append(settings.log_with)
    accelerator.project_configuration.set_directories(settings.output_dir)
    from accelerate.tracking import filter_trackers

    accelerator.log_with = filter_trackers(trackers, settings.output_dir)
    flat = {k: v for k, v in settings.to_dict().items() if isinstance(v, str | int | float | bool)}
    accelerator.init_trackers("routing_moe", config=flat)


if __name__ == "__main__":
    sys.exit(main())
