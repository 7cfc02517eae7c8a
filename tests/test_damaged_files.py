"""Damaged files: a reader accepts them, or refuses them with errors that name the file or its folder.

DAMAGED_FILES=100 DAMAGED_SEED=7 pytest tests/test_damaged_files.py tries more of them, and others.
"""

import contextlib
import io
import json
import os
import random
import re
import resource
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import psutil
import pytest
import tiny_vectors
import torch
from accelerate.state import AcceleratorState
from tiny_grids import QUICK, finetune
from tiny_runs import run, typed

from dataloader.building.downloads import Downloads
from dataloader.building.tables import Template, Templates, read_table
from dataloader.errors import InputError
from dataloader.gym import Gym
from dataloader.labels import read_labels
from dataloader.ontology import Ontology
from dataloader.task_files import read_jsonl, read_tsv
from dataloader.task_splits import load_split
from routing_moe import RoutingBartForConditionalGeneration
from routing_moe.analysis.ablation import read_scores as read_ablation
from routing_moe.analysis.saved_routes import load_routes
from routing_moe.answering.queries import read_queries
from routing_moe.checkpoints.find import find_mixture
from routing_moe.checkpoints.folder import load_progress
from routing_moe.checkpoints.tokenizer_files import load_tokenizer
from routing_moe.cli.ablate import main as ablate
from routing_moe.cli.answer import main as answer
from routing_moe.io.job_folder import JobFolder
from routing_moe.io.run_folder import settings_of_run
from routing_moe.model.given_routes import read_routes
from routing_moe.model.loading import load_bart, load_bart_config, load_routing_bart, load_vanilla_checkpoint
from routing_moe.model.task_vectors import load_task_vectors
from routing_moe.report.page import read_curves
from routing_moe.results.few_shot import read_results
from routing_moe.results.run_cost import read_cost
from routing_moe.results.scores import read_scores
from task.task_emb.settings import DescriptionSettings

# ---- ways to damage the bytes of a file

NUMBER, SEED = int(os.environ.get("DAMAGED_FILES", 16)), int(os.environ.get("DAMAGED_SEED", 0))
LONGEST = 60  # seconds for a damaged file
DEEP, HUGE, HALF = "[" * 3000 + "]" * 3000, "1" * 5000, '"\\ud800"'
TOKENS = ("NaN", "-1", "1e999", "null", "{}", "[]", '""', '"', ",", "x", "\x00", "\ufeff", "\t", "\n")
TOKENS += (DEEP, HUGE, HALF, "\x1b", "\r", "\u2028")
VALUES = (None, True, 0, -1, 10**12, 1.5, float("nan"), "", "x", [], {}, [[]], ["x"], {"x": 1})
VALUES += (10**400, 10**30, -(10**30), "\ud800", "\x00", [[[[]]]])
CONTENTS = (b"", b"[1, 2]", b"1", b"null", b'{"a": ', bytes(100), b"\xff\xfe\xe2\x28")
CONTENTS += (DEEP.encode(), b'{"a":' * 3000 + b"1" + b"}" * 3000, b"[" * 100_000, HUGE.encode())
TYPES = (b"'|O'", b"'<U9999999'", b"'<f999'", b"'<i8'", b"'<c16'", b"'V0'", b"3")
SHAPES = (b"(1000000000000,)", b"(-1, 3)", b"(3,)", b"()", b"('a',)")


def flip(rng: random.Random, data: bytes) -> bytes:
    position = rng.randrange(len(data))
    return data[:position] + bytes([data[position] ^ 1 << rng.randrange(8)]) + data[position + 1 :]


def delete_or_repeat(rng: random.Random, data: bytes) -> bytes:
    """Returns the data without a random part, mostly a short one, or with that part twice."""
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.randint(1, max(1, len(data) // rng.choice((1, 4, 20, 100)))))
    return data[: rng.choice((start, end))] + data[rng.choice((start, end)) :]


def truncate(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def insert(rng: random.Random, data: bytes) -> bytes:
    position = rng.randrange(len(data) + 1)
    return data[:position] + rng.choice(TOKENS).encode() + data[position:]


def replace_number(rng: random.Random, data: bytes) -> bytes:
    numbers = list(re.finditer(rb"-?\d+(?:\.\d+)?", data))
    if not numbers:
        return insert(rng, data)
    number = rng.choice(numbers)
    return data[: number.start()] + rng.choice(TOKENS).encode() + data[number.end() :]


def whole(rng: random.Random, data: bytes) -> bytes:
    return rng.choice((*CONTENTS, data.decode("latin-1").encode("utf-16"), rng.randbytes(len(data))))


ANY = (flip, truncate, delete_or_repeat, insert, replace_number, whole)


def changed_value(rng: random.Random, values) -> None:
    """Removes, renames or replaces a random value inside nested dictionaries and lists."""

    def paths(values, path=()):
        for key, value in values.items() if isinstance(values, dict) else enumerate(values):
            yield (*path, key)
            if isinstance(value, dict | list):
                yield from paths(value, (*path, key))

    *parents, key = rng.choice(list(paths(values)))
    for parent in parents:
        values = values[parent]
    act = rng.choice(("replace", "replace", "remove", "rename"))
    if act == "remove":
        del values[key]
    elif act == "rename" and isinstance(values, dict):
        values[f"{key}s"] = values.pop(key)
    else:
        values[key] = rng.choice(VALUES)


def in_json(rng: random.Random, data: bytes) -> bytes:
    values = json.loads(data)
    changed_value(rng, values)
    return json.dumps(values).encode()


def in_json_line(rng: random.Random, data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    number = rng.randrange(len(lines))
    return b"".join([*lines[:number], in_json(rng, lines[number]) + b"\n", *lines[number + 1 :]])


def in_state(rng: random.Random, data: bytes) -> bytes:
    state, file = torch.load(io.BytesIO(data), weights_only=True), io.BytesIO()
    changed_value(rng, state)
    torch.save(state, file)
    return file.getvalue()


def in_npy(rng: random.Random, data: bytes) -> bytes:
    pattern, values = rng.choice(((rb"'<f\d'", TYPES), (rb"\([^)]*\)", SHAPES)))
    value = rng.choice(values)
    return re.sub(pattern, lambda _: value, data, count=1)


INSIDE = {".json": in_json, ".jsonl": in_json_line, ".pt": in_state, ".npy": in_npy}

# ---- the files, and what reads them


class Files:
    """A gym, a BART, a run with an ablation, a grid, task vectors, and a run of the published code."""

    def __init__(self, folder: Path, originals, published: Path):
        self.folder, self.gym, self.bart, self.out = folder, folder / "gym", folder / "bart", folder / "out"
        for original in (originals.gym, originals.bart, originals.out):
            shutil.copytree(original, folder / original.name)
        shutil.copytree(published, folder / "published")
        commands = (self.predict, self.ablate, self.fine_tune, self.make_vectors)
        assert [command() for command in commands] == [0] * len(commands)
        (folder / "descriptions.json").write_text(json.dumps(tiny_vectors.SENTENCES))
        line = {"input": "hot", "outputs": ["cold"], "options": ["cold", "wet"]}
        (folder / "rows.jsonl").write_text(f"{json.dumps(line)}\n" * 3)
        rows = [{"text": f"word {n}", "label": "ab"[n % 2]} for n in range(4)]
        (folder / "table.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)
        pd.DataFrame(rows).to_csv(folder / "table.tsv", index=False, sep="\t")
        pd.DataFrame(rows).to_parquet(folder / "table.parquet")
        (folder / "new.txt").write_text("hot\ncold\n")
        (folder / "new.jsonl").write_text('{"input": "hot", "options": ["cold", "wet"]}\n{"input": "dry"}\n')
        (folder / "routes.json").write_text('{"colour": [0, 1, 1], "count": [[0.5, 0.5], [1, 0], [0, 1]]}')
        assert self.answer() == 0
        (self.gym / "features.csv").write_text("task,odd,letter\ncolour,0,c\ncount,1,c\n")
        torch.save(load_bart(self.bart).state_dict(), folder / "plain.pt")

    def predict(self) -> int:
        absent = dict.fromkeys(("do_train", "initialize_from_vanilla", "model", "num_beams"))
        return run(self.gym, self.bart, self.out, **absent, do_predict=True, predict_max_examples=1)

    def resume(self) -> int:
        (self.out / "cost.json").unlink(missing_ok=True)  # else the run is finished
        return run(self.gym, self.bart, self.out, total_steps=1, resume=True)

    def ablate(self) -> int:
        AcceleratorState._reset_state(reset_partial_state=True)
        return ablate([str(self.out), "--max_examples", "1"])

    def fine_tune(self) -> int:
        chosen = QUICK | dict(learning_rate_list=[0.03], task_dir=self.gym / "plural")
        return finetune(self.gym, self.bart, self.folder / "grid", **chosen)

    def make_vectors(self) -> int:
        return tiny_vectors.run("text", self.gym, self.bart, self.folder / "text", tasks=["colour", "count"])

    def answer(self) -> int:
        AcceleratorState._reset_state(reset_partial_state=True)
        chosen = dict(checkpoint=self.out, task="colour", inputs=self.folder / "new.txt")
        return answer(typed(chosen | dict(output_file=self.folder / "answers.jsonl")))


COMMANDS = {
    "answers.jsonl": Files.answer,
    "answers.meta.json": Files.answer,
    "out/best/text_vectors.npz": Files.answer,
    "out/best/config.json": Files.predict,
    "out/run.json": Files.predict,
    "out/last/training_state.pt": Files.resume,
    "out/curves.csv": Files.resume,
    "out/analysis/ablation/job.json": Files.ablate,
    "grid/run.json": Files.fine_tune,
    "grid/configurations/plural_12_100_lr0.03_bsz6.json": Files.fine_tune,
    "text/run.json": Files.make_vectors,
    "text/by_task/count.npz": Files.make_vectors,
}


def mixture(path: Path) -> None:
    find_mixture(path.parent, None, "checkpoint_name")


def published(path: Path) -> None:
    run_folder = path.parent if path.name == "config.json" else path.parents[1]
    find_mixture(run_folder, None, "checkpoint_name").load()


def table(path: Path) -> None:
    templates = Templates(Template("--input", "{text}"), (Template("--output", "{label}"),))
    for _, row in read_table(str(path), ("text", "label"), Downloads(path.parent)).rows:
        with contextlib.suppress(ValueError):  # which the command reports with file and line
            templates.example(row)


READERS = {
    "table.csv": table,
    "table.tsv": table,
    "table.jsonl": table,
    "table.parquet": table,
    "new.txt": lambda path: list(read_queries(str(path))),
    "new.jsonl": lambda path: list(read_queries(str(path))),
    "routes.json": read_routes,
    "out/run.json": lambda path: settings_of_run(path.parent),
    "out/cost.json": lambda path: read_cost(path.parent),
    "gym/split.json": load_split,
    "gym/ontology.json": Ontology.load,
    "gym/metrics.json": lambda path: Gym(path.parent).metric("colour"),
    "gym/colour/colour_12_13_dev.tsv": read_tsv,
    "rows.jsonl": read_jsonl,
    "gym/features.csv": read_labels,
    "descriptions.json": lambda path: DescriptionSettings(output_dir="", descriptions=path).sentences(),
    "text/id2task.json": lambda path: load_task_vectors(path.parent),
    "text/task_vecs.npy": lambda path: load_task_vectors(path.parent),
    "out/losses.csv": lambda path: read_curves(path, "steps"),
    "out/best/checkpoint.json": lambda path: load_progress(path.parent),
    "out/1-steps/route.npy": lambda path: load_routes(path.parents[1]),
    "out/best/model.safetensors": lambda path: load_routing_bart(
        RoutingBartForConditionalGeneration, path.parent
    ),
    "out/best/eval-dev-performance.csv": read_scores,
    "out/analysis/ablation/sets/base.json": lambda path: JobFolder(
        path.parent, read_ablation, "score again"
    ).finished(path.stem),
    "grid/results.csv": lambda path: read_results("plural", path),
    "bart/config.json": lambda path: load_bart_config(path.parent),
    "bart/model.safetensors": lambda path: load_bart(path.parent),
    "bart/tokenizer.json": lambda path: load_tokenizer(path.parent, 10**6),
    "plain.pt": load_vanilla_checkpoint,
    "published/config.json": published,
    "published/best/model.pt": published,
    "published/best/task_vecs.npy": published,
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


@contextlib.contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raises TimeoutError in the block after some seconds."""

    def end(*_):
        raise TimeoutError(f"not read within {seconds} s")

    previous = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def damaged(name: str, content: bytes, number: int) -> Iterator[tuple[str, bytes]]:
    """Yields (how to make it again, damaged content) of a file; the same ones for equal DAMAGED_SEED."""
    print(f"DAMAGED_SEED={SEED} DAMAGED_FILES={number}")
    for seed in range(SEED, SEED + number):
        rng = random.Random(f"{name} {seed}")
        inside = INSIDE.get(Path(name).suffix)
        way = inside if inside and rng.random() < 0.5 else rng.choice(ANY)
        yield f"{way.__name__}, seed {seed}", way(rng, content)


@pytest.mark.parametrize("name", READERS)
def test_a_reader_of_a_damaged_file_accepts_it_or_names_it(name, files):
    path, read = files.folder / name, READERS[name]
    original = path.read_bytes()
    read(path)
    for damage, content in damaged(name, original, NUMBER):
        path.write_bytes(content)
        names_it = True
        try:
            with limited(LONGEST):
                read(path)
        except InputError as error:
            names_it = str(path.parent) in str(error)
        except BaseException as error:
            raise AssertionError(f"{damage}: {content[:500]}") from error
        assert names_it, damage
    path.write_bytes(original)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_with_a_damaged_file_ends_with_one_error_or_without(name, files, capsys, request):
    path, command = files.folder / name, COMMANDS[name]
    original = path.read_bytes()
    request.addfinalizer(lambda: path.write_bytes(original))
    capsys.readouterr()
    for damage, content in damaged(name, original, NUMBER // 2):
        path.write_bytes(content)
        try:
            with limited(LONGEST):
                code = command(files)
        except BaseException as error:
            raise AssertionError(f"{damage}: {content[:500]}") from error
        printed = capsys.readouterr().err
        assert code in (0, 2), (damage, printed)
        assert (code == 2) == ("error: " in printed), (damage, printed)
    path.write_bytes(original)
