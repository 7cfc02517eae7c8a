"""Errors of the fine-tuning command for wrong files and folders; it writes nothing then."""

import json
import shutil

import numpy as np
import pytest
import torch
from finetuning_mistakes import MIX, complaint
from mistakes import Place, assert_fault, refused
from tiny_grids import finetune
from tiny_runs import contents, run, weights

from dataloader.atomic_files import folder_lock
from routing_moe.model.task_vectors import save_task_vectors

pytestmark = pytest.mark.usefixtures("no_gpu")


# ---- data


def test_a_task_without_dev_files_is_an_error(fresh, capsys):
    (fresh.gym / "plural/plural_12_13_dev.tsv").unlink()
    output = complaint(fresh, capsys)
    assert_fault(output, f"{fresh.gym}/plural/plural_12_13_dev.tsv: no such file")


def test_a_malformed_line_is_an_error(fresh, capsys):
    fresh.write(fresh.gym / "plural/plural_12_100_train.tsv", "cat\tcats\nmouse\n")
    output = complaint(fresh, capsys)
    assert_fault(output, f"{fresh.gym}/plural/plural_12_100_train.tsv: 1 malformed line", "--skip_malformed")


def test_weights_of_another_size_are_an_error(fresh, capsys, originals):
    state = weights(originals.bart)
    state["model.encoder.layers.0.fc1.weight"] = torch.zeros(30, 16)
    torch.save(state, fresh.folder / "wide.pt")
    output = complaint(fresh, capsys, checkpoint="<here>/wide.pt")
    path = fresh.folder / "wide.pt"
    assert_fault(
        output, f"--checkpoint {path}: these are not the weights of a plain BART with 2+1 layers, width 16"
    )


def test_vectors_of_other_dimensions_are_an_error(fresh, capsys, starts):
    (fresh.folder / "vectors").mkdir()
    save_task_vectors(fresh.folder / "vectors", ["plural"], np.zeros((1, 5)))
    output = complaint(fresh, capsys, starts, **MIX, taskvecs="<here>/vectors")
    where = fresh.folder / "vectors"
    assert_fault(output, f"--taskvecs {where} has vectors of 5 dimensions", f"{starts['run']}/best have 8")


def test_vectors_without_the_task_are_an_error(fresh, capsys, starts):
    fresh.vectors(["colour", "count"])
    output = complaint(fresh, capsys, starts, **MIX, taskvecs="<here>/vectors")
    assert_fault(
        output, f"--taskvecs {fresh.folder}/vectors has no vector for plural, only for colour, count"
    )


def new_task(place: Place) -> None:
    """Writes the folder of a task that the runs do not know, in a gym without their tasks."""
    shutil.copytree(place.gym / "plural", place.folder / "alone/past")
    for path in (place.folder / "alone/past").iterdir():
        path.rename(path.with_name(path.name.replace("plural", "past")))
    place.write(place.folder / "alone/metrics.json", {"past": "EM"})


def test_a_missing_stored_vector_is_an_error(fresh, capsys, starts):
    new_task(fresh)
    output = complaint(fresh, capsys, starts, **MIX, task_dir="<here>/alone/past", task_vector="stored")
    assert_fault(output, f"--task_vector is stored, but {starts['run']}/best has no vector for past")


def test_a_task_whose_neighbours_have_no_texts_is_an_error(fresh, capsys, starts):
    new_task(fresh)
    output = complaint(fresh, capsys, starts, **MIX, task_dir="<here>/alone/past")
    assert_fault(
        output, f"{fresh.folder}/alone: no train file of any task with a task vector, such as colour, count"
    )
    assert_fault(output, "give a gym with it as --train_dir")


# ---- the output folder


def test_a_folder_with_other_files_is_an_error(fresh, capsys):
    fresh.write(fresh.out / "results.csv", "mine")
    output = complaint(fresh, capsys)
    assert_fault(output, f"--output_dir {fresh.out} holds results.csv, but no run.json; name another")


def test_the_folder_of_a_training_run_is_an_error(with_run, capsys):
    output = complaint(with_run, capsys)
    assert_fault(output, f"--output_dir {with_run.out} holds a run of another command; name another folder")


def test_the_folder_of_a_grid_is_not_trained_into(fresh, capsys):
    fresh.write(fresh.out / "run.json", {"settings": {"task_dir": "x"}})
    output = refused(fresh, capsys, lambda: run(fresh.gym, fresh.bart, fresh.out)).err
    assert f"--output_dir {fresh.out}" in output


@pytest.mark.parametrize("content", ["garbage", json.dumps({"settings": 3})])
def test_a_broken_description_of_a_grid_is_an_error(fresh, capsys, content):
    fresh.write(fresh.out / "run.json", content)
    assert_fault(complaint(fresh, capsys), f"{fresh.out}/run.json ")


def test_a_broken_outcome_is_an_error(fresh, capsys):
    quick = dict(task_dir=fresh.gym / "plural", samples="first", total_steps=1, do_predict=None)
    assert finetune(fresh.gym, fresh.bart, fresh.out, **quick) == 0
    fresh.write(fresh.out / "configurations/plural_12_100_lr0.03_bsz6.json", "{")
    output = complaint(fresh, capsys, **quick, max_output_length=8)
    assert_fault(output, "plural_12_100_lr0.03_bsz6.json is not valid JSON")


def test_a_missing_cluster_is_an_error(fresh, capsys, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    code = finetune(fresh.gym, fresh.bart, fresh.out, task_dir=fresh.gym / "plural", ray="auto")
    output = capsys.readouterr().err
    assert code == 2
    assert (
        "error: --ray auto: no cluster can be reached there (Could not find any running Ray instance"
        in output
    )
    assert "Traceback" not in output
    assert "configurations/" not in str(contents(fresh.out).keys())
    with folder_lock(fresh.out):
        pass  # the lock is released


def test_a_launcher_of_several_processes_is_an_error(fresh, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    output = complaint(fresh, capsys)
    assert_fault(
        output, "a configuration runs in one process: leave accelerate launch out, and give --num_workers"
    )
