"""Trains a mixture in Python, without a command: a few lines around the optimizer step of all commands.

    model = RoutedModel.from_backbone("google/flan-t5-small", num_experts=4, task_names=tasks)
    routed = Routed.train(model, tokenizer, "data/gym", "models/moe", total_steps=1000, max_input_length=128)

Scores, resuming, curves and several processes are what `routing-moe train` has.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from dataloader.encoding import TextFormat, encode
from dataloader.errors import InputError, did_you_mean
from dataloader.gym import Gym
from routing_moe.checkpoints.folder import save_checkpoint
from routing_moe.config.flags import flags_of, value_problems
from routing_moe.config.shared import StepSettings, TextFlags, text_problems, text_settings, trained_texts
from routing_moe.config.train import TrainSettings, learning_rate_of
from routing_moe.io.accelerator import make_accelerator
from routing_moe.io.files import new_folder_problems
from routing_moe.optim.step import Stepper

# Defaults of `routing-moe train`, beside that of the learning rate.
OF_COMMAND = ("router_lr", "task_model_lr", "initial_tau", "minimum_tau", "anneal_rate")


def train(
    model,
    tokenizer,
    gym: str | Path,
    folder: str | Path,
    tasks: Sequence[str] | None = None,
    mixed_precision: str | None = None,
    **settings,
) -> None:
    """Trains a mixture on the train files of a gym's tasks, in place, and saves it to a new folder.

    tasks: those of the model (None), or some of them; vectors of others then count as random, unless
    `config.vectors_seen` says what they are based on. settings: fields of `StepSettings` (total_steps,
    learning_rate, ...) and flags of texts (max_input_length, ...). Rates and temperature are by default those
    of `routing-moe train`. Raises InputError.
    """
    known = {field.name for cls in (StepSettings, TextFlags) for field in dataclasses.fields(cls)}
    if unknown := sorted(set(settings) - known):
        raise InputError(f"{unknown[0]!r} is no setting of training{did_you_mean(unknown[0], known)}")
    names = {field.name for field in dataclasses.fields(StepSettings)}
    usual = {name: getattr(TrainSettings, name) for name in OF_COMMAND}
    usual["learning_rate"] = learning_rate_of(model.config.expert_kind)
    step_settings = StepSettings(**usual | {name: value for name, value in settings.items() if name in names})
    given = {name: value for name, value in settings.items() if name not in names}
    texts = TextFlags(**trained_texts(model.config.text_settings, given) | given)
    tasks = list(tasks or model.config.task_names)
    problems = new_folder_problems("folder", Path(folder)) + Gym(gym).lacking(tasks, "the model")
    problems += value_problems(settings, flags_of(TrainSettings))
    problems += text_problems(texts, model.config, "the model")
    if len(tokenizer) > (size := model.config.vocab_size):
        problems.append(f"the tokenizer has {len(tokenizer)} tokens, more than the {size} of the model")
    problems += [] if tasks else ["the model has no task_names, the tasks to train on"]
    if problems:
        raise InputError(problem.replace("--", "") for problem in problems)
    examples = encode(
        Gym(gym).pool(tasks, "train"),
        tokenizer,
        TextFormat.of(texts, model.config),
        {name: row for row, name in enumerate(model.config.task_names)},
    )
    accelerator = make_accelerator(mixed_precision)
    stepper = Stepper(model.to(accelerator.device), examples, step_settings, accelerator)
    for _ in stepper.run(step_settings.total_steps, quiet=False):
        pass
    config = model.eval().config
    config.text_settings = text_settings(texts)
    config.input_templates = (config.input_templates or {}) | Gym(gym).templates(tasks)
    config.note_training(tasks)
    if config.has_router and config.vectors_seen is None:
        config.random_vectors = sorted(set(config.task_names) - set(config.trained_tasks))
    save_checkpoint(model, tokenizer, folder)
