"""Shared by the tests of task vectors: command lines of each method on the tiny gym."""

import json
from pathlib import Path

import numpy as np
import torch
from accelerate.state import AcceleratorState
from tiny_runs import typed

from routing_moe.config.flags import parse
from routing_moe.model.task_vectors import load_task_vectors, save_task_vectors
from task.task_emb import settings
from task.task_emb.job import method_of

TEXTS = dict(max_input_length=24)
ANSWERS = TEXTS | dict(max_output_length=6)
TRAINING = ANSWERS | dict(total_steps=2, train_batch_size=4)
METHODS = {
    "random": dict(taskvecs_dim=5),
    "text": TEXTS,
    "finetuned_text": TRAINING | dict(learning_rate=0.01),
    "fisher": TRAINING | dict(learning_rate=0.01, bottleneck=2),
    "gradient": ANSWERS | dict(projection_dim=7),
}
KINDS = ("Random", "Text", "FinetunedText", "Fisher", "Gradient", "Description")
SETTINGS = {cls.method: cls for cls in (getattr(settings, f"{kind}Settings") for kind in KINDS)}
WITH_A_BART = ("text", "finetuned_text", "fisher", "gradient")
SENTENCES = {
    "colour": "Name the colour of a thing.",
    "count": ["Add two numbers.", "Give the sum in digits."],
    "opposite": "Write the opposite of a word.",
    "plural": "Write the plural of a noun.",
}


def flags(method: str, gym: Path, bart: Path, output_dir: Path, **changed) -> list[str]:
    """Returns a command line; `flag=value` changes a flag, None removes it."""
    chosen = {"train_dir": gym, "output_dir": output_dir, "quiet": True}
    if method == "descriptions":
        del chosen["train_dir"]
    chosen |= METHODS.get(method, {}) | ({"model": bart} if method in WITH_A_BART else {}) | changed
    return typed(chosen)


def run(method: str, gym: Path, bart: Path, output_dir: Path, **changed) -> int:
    """Returns the exit code of `routing-moe vectors METHOD` with `flags(...)`, as in a new process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    return SETTINGS[method].main(flags(method, gym, bart, output_dir, **changed))


def settings_of(method: str, words: list[str]):
    return SETTINGS[method].of_flags(parse(SETTINGS[method], words))


def loaded(method: str, world, **changed):
    """Returns the object that computes vectors of a world's tasks, with its model loaded."""
    AcceleratorState._reset_state(reset_partial_state=True)
    return method_of(settings_of(method, flags(method, world.gym, world.bart, world / "unused", **changed)))


def vectors(folder: Path) -> dict:
    """Returns {task: vector (D,)}."""
    names, vectors_ND = load_task_vectors(folder)
    return dict(zip(names, vectors_ND, strict=True))


def meta(folder: Path) -> dict:
    return json.loads((folder / "meta.json").read_text())


def write_vectors(folder: Path, rows: dict, **meta) -> Path:
    """Returns the folder, with the vectors (D,) of these names and meta data, if some are given."""
    folder.mkdir(parents=True, exist_ok=True)
    save_task_vectors(folder, list(rows), np.array(list(rows.values())))
    if meta:
        (folder / "meta.json").write_text(json.dumps(meta))
    return folder


def same_vectors(folder: Path, expected: Path) -> bool:
    """Returns whether both folders have the same tasks and vectors, bit for bit."""
    files = ("id2task.json", "task_vecs.npy")
    return all((folder / name).read_bytes() == (expected / name).read_bytes() for name in files)


def diagonal_fisher_one_by_one(log_likelihood, parameters, batches):
    """As `task.task_emb.gradients.diagonal_fisher`, by a backward pass per example: the slow reference."""
    squares = []
    for batch in batches:
        for i in range(len(next(iter(batch.values())))):
            leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
            example = {name: tensor[i] for name, tensor in batch.items()}
            gradients = torch.autograd.grad(log_likelihood(leaves, example), list(leaves.values()))
            squares.append([gradient.double() ** 2 for gradient in gradients])
    if not squares:
        raise ValueError("no examples")
    sums = [torch.stack(of_parameter).mean(dim=0) for of_parameter in zip(*squares, strict=True)]
    return dict(zip(parameters, sums, strict=True))
