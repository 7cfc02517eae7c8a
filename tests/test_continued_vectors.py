"""Continuing a folder of task vectors: what must not have changed, and the errors if it has."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_vectors
from mistakes import assert_problem, complaint
from tiny_runs import contents, write_bart

from dataloader.atomic_files import folder_lock


@pytest.fixture
def begun(fresh):
    """Folders with the vectors of two tasks, with the gym and the model they were computed from."""
    for method in ("random", "text", "fisher"):
        fields = dict(tasks=["colour", "count"])
        assert tiny_vectors.run(method, fresh.gym, fresh.bart, fresh.folder / method, **fields) == 0
    return fresh


def other_data(place):
    path = place.gym / "count/count_12_100_train.tsv"
    place.write(path, path.read_text().replace("six\t6", "six\t66"))


def other_inputs(place):
    path = place.gym / "count/count_12_100_train.tsv"
    place.write(path, path.read_text().replace("six\t6", "sixty\t6"))


def damaged(place):
    place.write(place.folder / "fisher/by_task/count.npz", b"PK\x03\x04 cut off")


def another_shape(place):
    rest = dict(data="x", seconds=1.0, task="count", parts="{}", flops=0.0)
    np.savez(place.folder / "fisher/by_task/count.npz", vector_D=np.ones((2, 2)), **rest)


def other_tokenizer(place):
    path = place.folder / "tokenizer"
    shutil.copytree(place.bart, path)
    place.write(path / "tokenizer.json", (path / "tokenizer.json").read_text() + " ")


def other_weights(place):
    shutil.rmtree(place.bart)
    write_bart(place.bart, seed=6)


COUNT = "<here>/fisher/by_task/count.npz"
CHANGES = {
    "other settings": (
        "fisher",
        None,
        dict(bottleneck=3),
        "--bottleneck is 3, but in the vectors in <here>/fisher it was 2; name another --output_dir",
    ),
    "another seed": (
        "random",
        None,
        dict(seed=1),
        "--seed is 1, but in the vectors in <here>/random it was 42",
    ),
    "another method": (
        "text",
        None,
        dict(output_dir="<here>/fisher"),
        "--output_dir <here>/fisher holds vectors of the method 'fisher'; name another folder",
    ),
    "other answers": (
        "fisher",
        other_data,
        {},
        "<here>/fisher/by_task/count.npz: the data of count has changed since; delete the file to",
    ),
    "other inputs": (
        "text",
        other_inputs,
        {},
        "<here>/text/by_task/count.npz: the data of count has changed",
    ),
    "other weights": (
        "fisher",
        other_weights,
        {},
        "its vectors were computed with a model whose files differ from those of the given model",
    ),
    "another tokenizer": (
        "text",
        other_tokenizer,
        dict(tokenizer="<here>/tokenizer"),
        "its vectors were computed with a model whose files differ from those of the given model",
    ),
    "a damaged file": ("fisher", damaged, {}, "; delete it to compute that vector again"),
    "other arrays": ("fisher", another_shape, {}, f"{COUNT} is damaged; delete it to compute that vector"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_folder_with_other_inputs_is_not_continued(name, begun, capsys):
    method, change, changed, *fragments = CHANGES[name]
    if change:
        change(begun)
    printed = complaint(begun, capsys, method, **{"output_dir": f"<here>/{method}"} | changed)
    assert_problem(printed, *map(begun.filled_in, fragments))


def test_inputs_that_vectors_do_not_depend_on_may_change(begun, capsys):
    other_data(begun)  # text vectors do not read answers
    moved = Path(shutil.move(begun.bart, begun.folder / "moved"))
    less = dict(max_tokens_per_micro_batch=100)  # as after running out of memory
    assert tiny_vectors.run("text", begun.gym, moved, begun.folder / "text", **less) == 0
    assert len(tiny_vectors.vectors(begun.folder / "text")) == 4


def test_two_commands_do_not_write_into_the_same_folder(begun, capsys):
    before = contents(begun.folder / "text")
    with folder_lock(begun.folder / "text"):
        assert tiny_vectors.run("text", begun.gym, begun.bart, begun.folder / "text") == 2
    assert "another command is using it; wait until it ends, or end it" in capsys.readouterr().err
    assert contents(begun.folder / "text") == before
