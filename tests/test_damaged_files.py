"""Damaged files: a reader accepts them, or refuses them with errors that name the file or its folder.

DAMAGED_FILES=100 DAMAGED_SEED=7 pytest tests/test_damaged_files.py tries more of them, and others.
"""

import io
import json
import os
import random
import re
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from tiny_runs import run
from tiny_vectors import write_vectors

from dataloader.errors import InputError
from dataloader.gym import Gym
from dataloader.ontology import Ontology
from dataloader.task_files import read_task_file
from dataloader.task_splits import load_split
from routing_moe.analysis.features import read_task_table
from routing_moe.analysis.saved_routes import load_routes
from routing_moe.answering.queries import read_queries
from routing_moe.checkpoints.find import find_mixture
from routing_moe.checkpoints.folder import load_progress
from routing_moe.checkpoints.tokenizer_files import load_tokenizer
from routing_moe.io.run_folder import settings_of_run
from routing_moe.model.given_routes import read_routes
from routing_moe.model.loading import load_backbone, load_vanilla_checkpoint
from routing_moe.model.mixtures import load_mixture, plain_config
from routing_moe.model.task_vectors import load_task_vectors
from routing_moe.report.page import read_curves
from routing_moe.results.run_cost import read_cost
from routing_moe.results.scores import read_scores
from routing_moe.task_choice.contested import Contested

# ---- ways to damage the bytes of a file

NUMBER, SEED = int(os.environ.get("DAMAGED_FILES", 8)), int(os.environ.get("DAMAGED_SEED", 0))
DEEP, HUGE = "[" * 3000 + "]" * 3000, "1" * 5000
TOKENS = ("NaN", "-1", "1e999", "null", "{}", "[]", '""', ",", "x", "\x00", "\ufeff", "\t", "\n", DEEP, HUGE)
VALUES = (None, True, 0, -1, 10**30, 1.5, float("nan"), "", "x", [], {}, [[]], ["x"], {"x": 1}, "\ud800")
CONTENTS = (b"", b"[1, 2]", b"1", b"null", b'{"a": ', bytes(100), b"\xff\xfe\xe2\x28")
CONTENTS += (DEEP.encode(), HUGE.encode())
IN_ARRAYS = (b"'|O'", b"'<U9999999'", b"'<i8'", b"'<c16'", b"'V0'")


def flip(rng: random.Random, data: bytes) -> bytes:
    position = rng.randrange(len(data))
    return data[:position] + bytes([data[position] ^ 1 << rng.randrange(8)]) + data[position + 1 :]


def truncate(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def insert(rng: random.Random, data: bytes) -> bytes:
    """Replaces a number, or inserts."""
    places = [match.span() for match in re.finditer(rb"-?\d+(?:\.\d+)?", data)] + [(len(data) // 2,) * 2]
    start, end = rng.choice(places)
    return data[:start] + rng.choice(TOKENS).encode() + data[end:]


def whole(rng: random.Random, data: bytes) -> bytes:
    return rng.choice((*CONTENTS, data.decode("latin-1").encode("utf-16"), rng.randbytes(len(data))))


def changed_value(rng: random.Random, values) -> None:
    """Removes or replaces a random value inside nested dictionaries and lists."""

    def paths(values, path=()):
        for key, value in values.items() if isinstance(values, dict) else enumerate(values):
            yield (*path, key)
            if isinstance(value, dict | list):
                yield from paths(value, (*path, key))

    *parents, key = rng.choice(list(paths(values)))
    for parent in parents:
        values = values[parent]
    if rng.random() < 0.3:
        del values[key]
    else:
        values[key] = rng.choice(VALUES)


def inside(rng: random.Random, data: bytes, kind: str) -> bytes:
    """Changes a value of a JSON file, a state of torch or the header of an array."""
    if kind == ".npy":
        return data.replace(b"'<f4'", rng.choice(IN_ARRAYS)).replace(b"(", b"(-" * rng.randint(0, 1) + b"(")
    values = torch.load(io.BytesIO(data), weights_only=True) if kind == ".pt" else json.loads(data)
    changed_value(rng, values)
    if kind == ".json":
        return json.dumps(values).encode()
    torch.save(values, file := io.BytesIO())
    return file.getvalue()


# ---- the files, and what reads them


class Files:
    """A gym, a BART, a run with a prediction, task vectors, and a run of the published code."""

    def __init__(self, folder: Path, originals, published: Path):
        self.folder, self.gym, self.bart, self.out = folder, folder / "gym", folder / "bart", folder / "out"
        for original in (originals.gym, originals.bart, originals.out):
            shutil.copytree(original, folder / original.name)
        shutil.copytree(published, folder / "published")
        assert self.predict() == 0
        line = {"input": "hot", "outputs": ["cold"], "options": ["cold", "wet"]}
        (folder / "rows.jsonl").write_text(f"{json.dumps(line)}\n" * 3)
        (folder / "new.jsonl").write_text('{"input": "hot", "options": ["cold", "wet"]}\n{"input": "dry"}\n')
        (folder / "routes.json").write_text('{"colour": [0, 1, 1], "count": [[0.5, 0.5], [1, 0], [0, 1]]}')
        (folder / "features.csv").write_text("task,odd,letter\ncolour,0,c\ncount,1,c\n")
        Contested(1.0, {"colour": [0, 3], "count": [1]}, 72, 5, 1000).write(folder)
        write_vectors(folder / "text", dict.fromkeys(("colour", "count"), np.ones(3)))
        torch.save(load_backbone(self.bart).state_dict(), folder / "plain.pt")

    def predict(self) -> int:
        absent = dict.fromkeys(("do_train", "initialize_from_vanilla", "model"))
        flags = dict(do_predict=True, predict_max_examples=1, num_beams=1)
        return run(self.gym, self.bart, self.out, **absent, **flags)

    def resume(self) -> int:
        (self.out / "cost.json").unlink(missing_ok=True)  # else the run is finished
        return run(self.gym, self.bart, self.out, total_steps=1, resume=True)


def published(path: Path) -> None:
    run_folder = path.parent if path.name == "config.json" else path.parents[1]
    find_mixture(run_folder, None, "checkpoint_name").load()


COMMANDS = {
    "out/best/config.json": Files.predict,
    "out/run.json": Files.predict,
    "out/last/training_state.pt": Files.resume,
    "out/curves.csv": Files.resume,
}
READERS = {
    "new.jsonl": lambda path: list(read_queries(str(path))),
    "rows.jsonl": read_task_file,
    "routes.json": read_routes,
    "features.csv": read_task_table,
    "gym/split.json": load_split,
    "gym/ontology.json": Ontology.load,
    "gym/metrics.json": lambda path: Gym(path.parent).metric("colour"),
    "gym/colour/colour_12_13_dev.tsv": read_task_file,
    "text/id2task.json": lambda path: load_task_vectors(path.parent),
    "text/task_vecs.npy": lambda path: load_task_vectors(path.parent),
    "out/run.json": lambda path: settings_of_run(path.parent),
    "out/cost.json": lambda path: read_cost(path.parent),
    "out/losses.csv": lambda path: read_curves(path, "steps"),
    "contested.json": lambda path: Contested.load(path.parent),
    "out/1-steps/route.npy": lambda path: load_routes(path.parents[1]),
    "out/best/checkpoint.json": lambda path: load_progress(path.parent),
    "out/best/eval-dev-performance.csv": read_scores,
    "out/best/model.safetensors": lambda path: load_mixture(path.parent),
    "bart/config.json": lambda path: plain_config(path.parent),
    "bart/model.safetensors": lambda path: load_backbone(path.parent),
    "bart/tokenizer.json": lambda path: load_tokenizer(path.parent, 10**6),
    "plain.pt": load_vanilla_checkpoint,
    "published/config.json": published,
    "published/best/model.pt": published,
}

# ---- the tests


@pytest.fixture(scope="module")
def files(originals, published_run, tmp_path_factory):
    return Files(tmp_path_factory.mktemp("damaged"), originals, published_run)


@pytest.fixture(autouse=True)
def _little_memory(files):
    """Lets a reader use 3 GB, so that it reports a model that is too large instead of filling the machine."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 3 * 2**30, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


def damaged(path: Path, number: int) -> Iterator[str]:
    """Damages a file again and again; yields how. The same ways for equal DAMAGED_SEED."""
    original = path.read_bytes()
    try:
        for seed in range(SEED, SEED + number):
            rng = random.Random(f"{path.name} {seed}")
            if path.suffix in (".json", ".pt", ".npy") and rng.random() < 0.5:
                content = inside(rng, original, path.suffix)
            else:
                content = rng.choice((flip, truncate, insert, whole))(rng, original)
            path.write_bytes(content)
            print(f"DAMAGED_SEED={seed} DAMAGED_FILES=1: {content[:500]}")  # shown when a test fails
            yield f"seed {seed}"
    finally:
        path.write_bytes(original)


@pytest.mark.parametrize("name", READERS)
def test_a_reader_of_a_damaged_file_accepts_it_or_names_it(name, files):
    path, read = files.folder / name, READERS[name]
    read(path)
    for damage in damaged(path, NUMBER):
        message = str(path.parent)
        try:
            read(path)
        except InputError as error:
            message = str(error)
        assert str(path.parent) in message, damage


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_with_a_damaged_file_ends_with_one_error_or_without(name, files, capsys):
    for damage in damaged(files.folder / name, NUMBER // 2):
        code, printed = COMMANDS[name](files), capsys.readouterr().err
        assert code in (0, 2), (damage, printed)
        assert (code == 2) == ("error: " in printed), (damage, printed)
