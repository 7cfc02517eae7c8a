"""`--do_predict`: score the dev and test files of a section of the split with a checkpoint."""

import json
import logging
from pathlib import Path

import pandas as pd
from accelerate import Accelerator

from routing_moe.checks import Inputs
from routing_moe.evaluation import decoding_of, load_task_files, mean_score, predict, spread_over_draws
from routing_moe.results import ScoresFile, constant_scores, write_predictions
from routing_moe.run_state import describe_run, write_text
from routing_moe.settings import Settings
from routing_moe.starting import checkpoint_to_start_from, load_start
from routing_moe.tracking import log_to_file

log = logging.getLogger(__name__)


def run_prediction(settings: Settings, inputs: Inputs, accelerator: Accelerator) -> None:
    """Score the dev and test files of a section of the split; write scores and predictions."""
    tasks = list(inputs.split.section(settings.predict_split))
    model, tokenizer = load_start(settings, inputs.split)
    model.to(accelerator.device)
    log_to_file(settings.output_dir, "eval_log.txt", accelerator.is_main_process)
    if settings.predict_temperature is not None:
        model.config.router_temperature = settings.predict_temperature
    checkpoint = checkpoint_to_start_from(settings)
    # The scores of another run's checkpoint are this run's: that folder is not ours to write into.
    run = Path(settings.output_dir)
    for part in ("dev", "test"):
        files = task_files(settings, inputs, tasks, part, model, tokenizer)
        scores, predictions = predict(model, tokenizer, files, decoding_of(settings), accelerator)
        if accelerator.is_main_process:
            scores["constant"] = constant_scores(files, inputs.train_gym, inputs.predict_gym)
            written = ScoresFile(part, settings.predict_split, checkpoint.name, settings.prefix)
            predicted = run / checkpoint.name / "predictions"
            write_predictions(predicted, settings.prefix, files, predictions)
            write_text(run / written.path, scores.to_csv())
            log.info(
                "%s tasks, %s files: mean score %.4f over %d files%s, in %s",
                settings.predict_split, part, mean_score(scores), len(files), of_draws(scores),
                run / written.path,
            )  # fmt: skip
    if accelerator.is_main_process:
        description = json.dumps(describe_run(settings.to_dict()), indent=1)
        write_text(run / written.settings_path, description)


def of_draws(scores: pd.DataFrame) -> str:
    """What a score along random routes is."""
    if "draws" not in scores:
        return ""
    return f" (mean of {scores['draws'][0]} draws of all routes, std {spread_over_draws(scores):.4f})"


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
