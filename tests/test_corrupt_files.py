"""Corrupt files: every reader raises one InputError that names the file."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mistakes import assert_fault, complaint

from dataloader.errors import InputError
from dataloader.gym import Gym
from dataloader.labels import read_labels
from dataloader.ontology import Ontology
from dataloader.task_files import read_jsonl, read_tsv
from dataloader.task_splits import load_split
from routing_moe import RoutingBartForConditionalGeneration
from routing_moe.analysis.saved_routes import best_step, layers_with_experts, load_routes
from routing_moe.checkpoints.find import find_mixture
from routing_moe.checkpoints.folder import load_progress, load_training_state
from routing_moe.checkpoints.start import load_tokenizer
from routing_moe.checkpoints.tokenizer_files import check_tokenizer
from routing_moe.cli.report import main as report
from routing_moe.finetuning.task_choices import read_choices
from routing_moe.io.files import npy_bytes, npz_bytes
from routing_moe.io.job_folder import JobFolder
from routing_moe.io.run_folder import load_run_settings
from routing_moe.model.loading import load_bart, load_routing_bart, load_vanilla_checkpoint
from routing_moe.model.saved_config import load_bart_config
from routing_moe.model.task_vectors import META_FILE, load_meta, load_task_vectors
from routing_moe.report.ablation import ablation_data
from routing_moe.report.curves import curves_data
from routing_moe.report.data import _some_predictions
from routing_moe.results.few_shot import read_summary
from routing_moe.results.scores import read_scores
from routing_moe.results.summaries import read_summary as read_either
from task.task_emb.job import read_finished
from task.task_emb.reduction import Reduction
from task.task_emb.sources import Descriptions

HEADER = b"\x93NUMPY\x01\x00"


def npy(header: bytes) -> bytes:
    """A .npy file of this header and no data."""
    return HEADER + len(header).to_bytes(2, "little") + header


NASTY = {
    "nothing": b"",
    "zeros": bytes(100),
    "not UTF-8": b"\xff\xfe\x00",
    "brackets": b"[" * 100_000,
    "braces": b'{"a":' * 100_000,
    "a number of 5000 digits": b"9" * 5000,
    "numbers of 5000 digits": b'{"train": %s, "0": %s, "a": {"b": [%s]}}' % ((b"9" * 5000,) * 3),
    "numbers of 400 digits": b'{"encoder_layers": %s, "vector_D": [%s]}' % ((b"9" * 400,) * 2),
    "another value": b"null",
    "half a file": b'{"a": ',
    "the start of a zip": b"PK\x03\x04",
    "an empty zip": b"PK\x05\x06" + bytes(18),
    "a zip of other arrays": npz_bytes(a=np.ones(2)),
    "half a zip": npz_bytes(vector_D=np.ones(2), data="x", seconds=1.0)[:200],
    "a zip of a pickle": npz_bytes(vector_D=np.ones(2), data="x", seconds=1.0).replace(b"<f8", b"|O8"),
    "half a magic": HEADER[:4],
    "no header": HEADER,
    "a header that ends within a bracket": npy(b"{'descr': '<f8', 'fortran_order': False, 'shape': (3,"),
    "a header within a text": npy(b"{'descr': '''"),
    "a header of brackets": npy(b"(" * 9000),
    "a header that is no expression": npy(b"\x00\x01"),
    "a header of another type": npy(b"{'descr': 'x8', 'fortran_order': False, 'shape': (3,)}"),
    "a header of objects": npy(b"{'descr': '|O', 'fortran_order': False, 'shape': (3,)}"),
    "more than fits into memory": npy(b"{'descr': '<f8', 'fortran_order': False, 'shape': (%d,)}" % 10**17),
    "texts": npy_bytes(np.array([["a"]])),
    "complex numbers": npy_bytes(np.ones((2, 2), dtype=complex)),
    "fields": npy_bytes(np.zeros(2, dtype=[("a", "<f8"), ("b", "<i4")])),
}


@pytest.fixture(scope="module")
def folder(originals, tmp_path_factory):
    """Copies of all files that are read; a reader's file is restored after each content."""
    folder = tmp_path_factory.mktemp("corrupt")
    for name in ("gym", "bart", "out"):
        shutil.copytree(originals.folder / name, folder / name)
    np.savez(folder / "reduction.npz", a=np.ones(1))
    scores = {"task_prefix": ["colour"], "sample": ["colour_12_13"], "metric": ["ACC"]}
    scores |= {"performance": [0.5], "n": [3], "constant": [0.25]}
    pd.DataFrame(scores).to_csv(folder / "scores.csv")
    (folder / "vectors").mkdir()
    (folder / "vectors/id2task.json").write_text('{"0": "colour"}')
    np.save(folder / "vectors/task_vecs.npy", np.ones((1, 2)))
    return folder


def own_metrics(path: Path) -> None:
    Gym(path.parent).metric("colour")


def mixture(path: Path) -> None:
    find_mixture(path.parent, None, "checkpoint_name")


def read_piece(path: Path) -> None:
    JobFolder(path.parent, read_finished, "compute it again", ".npz").finished(path.stem)


READERS = {
    "gym/split.json": [load_split],
    "gym/ontology.json": [Ontology.load],
    "gym/metrics.json": [own_metrics],
    "gym/colour/colour_12_13_dev.tsv": [read_tsv],
    "gym/colour/colour_12_13_dev.jsonl": [read_jsonl],
    "gym/features.csv": [read_labels],
    "descriptions.json": [Descriptions],
    "vectors/id2task.json": [lambda path: load_task_vectors(path.parent)],
    "vectors/task_vecs.npy": [lambda path: load_task_vectors(path.parent)],
    f"vectors/{META_FILE}": [lambda path: load_meta(path.parent)],
    "by_task.npz": [read_piece],
    "reduction.npz": [lambda path: Reduction.load(path.parent)],
    "task_vector.json": [lambda path: read_choices(path, {})],
    "out/run.json": [lambda path: load_run_settings(path.parent)],
    "out/losses.csv": [lambda path: best_step(path.parent, [5]), lambda path: curves_data(path.parent)],
    "out/best/checkpoint.json": [lambda path: load_progress(path.parent)],
    "out/curves.csv": [lambda path: curves_data(path.parent)],
    "out/1-steps/route.npy": [lambda path: load_routes(path.parents[1])],
    "out/best/config.json": [mixture, lambda path: layers_with_experts(path.parents[1], 3)],
    "out/best/model.safetensors": [
        lambda path: load_routing_bart(RoutingBartForConditionalGeneration, path.parent),
        load_vanilla_checkpoint,
    ],
    "out/last/training_state.pt": [lambda path: load_training_state(path.parent)],
    "out/best/eval-dev-performance.csv": [read_scores, lambda path: read_either(path, "dev_performance")],
    "out/best/predictions/a_dev.jsonl": [lambda path: _some_predictions(path, 5)],
    "out/analysis/ablation/tasks.csv": [lambda path: ablation_data(path.parents[2], None, {})],
    "results.csv": [read_summary],
    "bart/config.json": [lambda path: load_bart_config(path.parent)],
    "bart/model.safetensors": [lambda path: load_bart(path.parent)],
    "bart/tokenizer.json": [lambda path: load_tokenizer(path.parent, 10**6)],
    "weights.pt": [load_vanilla_checkpoint],
}

NOT_WRITTEN_YET = ("out/losses.csv", "out/curves.csv", "out/best/predictions/a_dev.jsonl")
OF_A_LIBRARY = ("nothing", "zeros", "brackets", "half a zip")  # enough for files that take long to load


@pytest.mark.parametrize("name", READERS)
def test_a_corrupt_file_is_one_clear_error(name, folder):
    path, faults, accepted = folder / name, [], set()
    path.parent.mkdir(parents=True, exist_ok=True)
    original = path.read_bytes() if path.exists() else None
    for kind in OF_A_LIBRARY if path.suffix == ".safetensors" else NASTY:
        path.write_bytes(NASTY[kind])
        for read in READERS[name]:
            try:
                read(path)
                accepted.add(kind)
            except InputError as error:
                faults += error.faults
    path.unlink()
    if original is not None:
        path.write_bytes(original)
    # What a library reads from a folder is named by the folder.
    assert [fault for fault in faults if str(path.parent) not in fault or len(fault) > 3000] == []
    assert accepted == ({"nothing"} if name in NOT_WRITTEN_YET else set())


# ---- tables with values that are not numbers


def changed(path: Path, column: str, value) -> None:
    table = pd.read_csv(path, index_col=0, dtype=str)
    table.loc[table.index[-1], column] = value
    table.to_csv(path)


@pytest.mark.parametrize("value", ["x", "9" * 400, "True", "1e999"])
@pytest.mark.parametrize("column", ["performance", "n"])
def test_scores_that_are_not_numbers(folder, tmp_path, column, value):
    path = Path(shutil.copy(folder / "scores.csv", tmp_path))
    changed(path, column, value)
    with pytest.raises(InputError, match=r"scores\.csv(: column (performance|n)|) holds"):
        read_scores(path)


@pytest.mark.parametrize("file", ["losses.csv", "curves.csv"])
def test_curves_that_are_not_numbers(with_run, file):
    path = with_run.out / file
    column = "dev_loss" if file == "losses.csv" else "grad_norm"
    kept = path.read_bytes()
    for value in ("x", "9" * 400):
        changed(path, column, value)
        with pytest.raises(InputError, match=f"{file}: column {column} holds values that are not numbers"):
            curves_data(with_run.out)
        path.write_bytes(kept)
    changed(path, column, "inf")
    (curve,) = [curve for curve in curves_data(with_run.out) if curve["values"] == [None]]
    assert curve["steps"] == [1]


@pytest.mark.parametrize("rows", [b"step,loss\n\xff,1\n", b"step,loss\nx,1\n", b"a\n%s\n" % (b"9" * 5000)])
def test_curves_that_cannot_be_continued(with_run, capsys, rows):
    (with_run.out / "curves.csv").write_bytes(rows)
    errors = complaint(with_run, capsys, resume=True, total_steps=1)
    assert_fault(
        errors, f"{with_run.out}/curves.csv: cannot be continued", "delete it to resume without its rows"
    )


def test_a_page_of_a_run_whose_settings_have_no_limit(with_run, capsys):
    path = with_run.out / "run.json"
    description = json.loads(path.read_text())
    description["settings"]["max_grad_norm"] = float("inf")
    path.write_text(json.dumps(description))
    assert report([str(with_run.out), "--permutations", "2"]) == 0
    page = (with_run.out / "analysis/report.html").read_text()
    assert re.search(r"<th>max_grad_norm</th>\s*<td>Infinity</td>", page)


def test_a_tokenizer_is_checked_with_the_tokens_that_its_configuration_adds(originals, tmp_path):
    folder = Path(shutil.copytree(originals.bart, tmp_path / "bart"))
    config, added = folder / "tokenizer_config.json", {"1400": {"content": "<new>"}}
    config.write_text(json.dumps({"model_max_length": 10**30, "added_tokens_decoder": added}))
    check_tokenizer(folder, vocab_size=1401)
    with pytest.raises(InputError, match="its tokenizer has 1401 tokens, more than the 1400 embeddings"):
        check_tokenizer(folder, vocab_size=1400)
    for content in ("{", "[]", '{"added_tokens_decoder": {"x": {}}}'):
        config.write_text(content)
        with pytest.raises(InputError, match=r"tokenizer_config\.json: not the configuration of a tokenizer"):
            check_tokenizer(folder, vocab_size=1401)
