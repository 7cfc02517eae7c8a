"""Minimal examples of the faults that the fault campaign (benchmarks/faults.py) found."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import tiny_vectors
import torch
from conftest import tiny_bart_config
from matplotlib.figure import Figure
from tiny_runs import run

from dataloader.atomic_files import write_text
from dataloader.errors import InputError
from dataloader.gym import Gym
from routing_moe import RoutingBartForConditionalGeneration
from routing_moe.analysis.ablation.job import read_scores
from routing_moe.checkpoints.folder import STATE_FILE
from routing_moe.io.files import replacing_directory
from routing_moe.io.job_folder import JobFolder
from routing_moe.io.logs import log, log_to_file, start_logging
from routing_moe.model.loading import load_bart_config
from routing_moe.model.task_vectors import save_task_vectors
from routing_moe.plots.style import write_figure

FULL = Path("/dev/full")  # every write to this file fails with "disk full"
needs_full = pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full here")


def test_quotes_in_a_fault_are_short_and_printable():
    (message,) = InputError(f"x.json: no 'a\u2028b\nc\x00\ud800' {'9' * 5000} here:\n  set in").faults
    first, *others = message.split("\n")
    assert first.startswith("x.json: no 'a\\u2028b\\nc\\x00\\ud800' 9999")
    assert first.endswith("999 here:")
    assert len(first) < 1500
    assert others == ["  set in"]
    assert str(InputError(["é 猫", "b"])) == "é 猫\nb"


def test_a_task_name_that_cannot_be_a_folder_is_reported(originals):
    with pytest.raises(InputError, match="no task '999"):
        Gym(originals.gym).samples("9" * 5000)


def test_a_link_to_itself_is_not_a_task(tmp_path):
    (tmp_path / "metrics.json").symlink_to("metrics.json")
    assert Gym(tmp_path).tasks() == []


# ---- a full disk


@needs_full
def test_a_picture_on_a_full_disk_is_an_os_error_and_files_of_a_killed_command_are_overwritten(tmp_path):
    partial = tmp_path / "a.pdf.partial"
    partial.symlink_to(FULL)
    with pytest.raises(OSError, match="No space left"):
        write_figure(Figure(), tmp_path / "a.pdf")
    partial.write_bytes(b"of a process that was killed")
    write_figure(Figure(), tmp_path / "a.pdf")
    assert os.listdir(tmp_path) == ["a.pdf"]


@needs_full
def test_a_log_that_cannot_be_written_causes_no_traceback(tmp_path, capsys):
    (tmp_path / "log.txt").symlink_to(FULL)
    start_logging()
    log_to_file(tmp_path, "log.txt")
    log.info("still shown")
    start_logging()
    assert capsys.readouterr().err.strip().endswith("still shown")


@needs_full
def test_a_partial_file_on_a_full_disk_is_removed(tmp_path):
    (tmp_path / "a.json.partial").symlink_to(FULL)
    with pytest.raises(OSError, match="No space left"):
        write_text(tmp_path / "a.json", "{}")
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("kind", [RuntimeError, Exception])  # torch's, tokenizers'
def test_a_full_disk_reported_by_a_library_is_an_os_error(tmp_path, kind):
    def write():
        with replacing_directory(tmp_path / "last"):
            raise kind("unexpected pos 64 vs 0")

    with pytest.raises(OSError, match=r"last cannot be written; is the disk full\? \(unexpected pos 64 vs 0"):
        write()
    assert not os.listdir(tmp_path)


# ---- damaged files


def test_a_dropout_of_a_plain_bart_outside_0_to_1_is_reported(fresh):
    path = fresh.bart / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"activation_dropout": float("nan")}))
    with pytest.raises(
        InputError,
        match=r"bart/config.json: not a valid configuration .activation_dropout is nan; it must be",
    ):
        load_bart_config(fresh.bart)


@pytest.mark.parametrize("damage", ["removed", "text", "shape", "groups"])
def test_a_damaged_state_of_the_optimizer_is_reported(with_run, capsys, damage):
    path = with_run.out / "last" / STATE_FILE
    state = torch.load(path, weights_only=True)
    own = next(iter(state["optimizer"]["state"].values()))
    if damage == "removed":
        del own["exp_avg"]
    elif damage == "groups":
        state["optimizer"]["param_groups"][0]["params"] = []
    else:
        own["exp_avg_sq"] = "x" if damage == "text" else torch.zeros(3)
    torch.save(state, path)
    assert run(with_run.gym, with_run.bart, with_run.out, total_steps=1, resume=True) == 2
    assert f"{path.parent}: its training state is not that of this run" in capsys.readouterr().err


PREDICTION = dict(do_train=None, initialize_from_vanilla=None, model=None, do_predict=True)
# file in the run: a field of it, a value of another type, a part of the error
OTHER_KINDS = {
    "route_source": ("best/config.json", dict(route_source=[[]]), "not a valid configuration"),
    "task_names": (
        "best/config.json",
        dict(task_names=[{}]),
        "Invalid item at index 0 in list 'task_names'",
    ),
    "other names": (
        "best/config.json",
        dict(task_names=["x"]),
        "task_names differ from those in id2task.json",
    ),
    "dropout": ("best/config.json", dict(dropout=float("nan")), "dropout is nan; it must be a probability"),
    "eos": (
        "best/generation_config.json",
        dict(eos_token_id="x"),
        "eos_token_id 'x'; it must be a token id from",
    ),
    "pad": ("best/generation_config.json", dict(pad_token_id=10**9), "pad_token_id 1000000000; it must be a"),
    "states": (
        "best/generation_config.json",
        dict(output_hidden_states=[1]),
        "[1]; it must be true or false",
    ),
    "ontology": (
        "run.json",
        dict(settings=dict(task_ontology=1.5)),
        "run.json is damaged: task_ontology is 1.5",
    ),
    "n-gram": (
        "run.json",
        dict(settings=dict(no_repeat_ngram_size=[])),
        "is damaged: no_repeat_ngram_size is []",
    ),
}


@pytest.mark.parametrize("name", OTHER_KINDS)
def test_a_prediction_reports_values_of_other_types(with_run, capsys, name):
    file, changed, message = OTHER_KINDS[name]
    path = with_run.out / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    assert run(with_run.gym, with_run.bart, with_run.out, **PREDICTION, num_beams=None) == 2
    error = capsys.readouterr().err
    assert f"error: {path.parent}" in error
    assert message in error


def test_a_bart_with_invalid_init_std_is_reported(fresh, capsys):
    path = fresh.bart / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"init_std": float("nan")}))
    assert run(fresh.gym, fresh.bart, fresh.out) == 2
    error = capsys.readouterr().err
    assert f"--model {fresh.bart}/config.json: not a valid configuration (init_std is nan; it must" in error


@pytest.mark.parametrize(
    ("width", "message"),
    [
        (-1, r"config.json: not the configuration of a model \(.*-1"),
        (24, r"model.pt: not the weights of a run \(it is not a dictionary of tensors"),
    ],
)
def test_a_published_run_with_an_invalid_model_is_reported(tmp_path, width, message):
    fields = tiny_bart_config().to_dict() | {"router_block_num": 2, "encoder_ffn_dim": width}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    (tmp_path / "best").mkdir()
    torch.save({"model.shared.weight": "x"}, tmp_path / "best/model.pt")
    save_task_vectors(tmp_path / "best", ["a"], np.zeros((1, 8)))
    with pytest.raises(InputError, match=message):
        RoutingBartForConditionalGeneration.from_upstream(tmp_path)


def test_an_infinite_number_of_examples_is_reported(tmp_path):
    sets = JobFolder(tmp_path, read_scores, "score these again")
    sets.write("base", b'{"scores": {}, "seconds": 1, "examples": Infinity}')
    with pytest.raises(InputError, match=r"base\.json is damaged; delete it to score these again"):
        sets.finished("base")


def test_a_folder_of_vectors_with_invalid_settings_is_reported(fresh, capsys):
    folder = fresh.folder / "random"
    assert tiny_vectors.run("random", fresh.gym, fresh.bart, folder) == 0
    saved = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(saved | {"settings": True}))
    assert tiny_vectors.run("random", fresh.gym, fresh.bart, folder) == 2
    assert f"{folder / 'run.json'} is damaged" in capsys.readouterr().err
