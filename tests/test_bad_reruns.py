"""Errors for output folders that hold a run, and for checkpoints that do not fit."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from mistakes import Place, assert_fault, complaint

pytestmark = pytest.mark.usefixtures("no_gpu")

ONE_STEP = dict(total_steps=1)
PREDICT = dict(do_train=None, initialize_from_vanilla=None, do_predict=True)


def foreign_state(place):
    torch.save(
        {"step": 1, "optimizer": {"state": {}, "param_groups": []}}, place.out / "last/training_state.pt"
    )


RUNS = {
    "the same folder again": (
        None,
        ONE_STEP,
        "--output_dir <out> already holds a run; give --resume to continue it, or name another folder",
    ),
    "resuming with another setting": (
        None,
        ONE_STEP | dict(resume=True, learning_rate=0.5),
        "--learning_rate is 0.5, but in the run to resume it was 0.01",
    ),
    "resuming without a setting": (
        None,
        ONE_STEP | dict(resume=True, num_experts=None),
        "--num_experts is not given, but in the run to resume it was 2",
    ),
    "resuming with a foreign training state": (
        foreign_state,
        ONE_STEP | dict(resume=True),
        "<out>/last: its training state is not that of this run",
        "to start again, delete <out>/last",
    ),
    "a run.json without settings": (
        lambda place: place.write(place.out / "run.json", {"settings": 3}),
        ONE_STEP | dict(resume=True),
        "<out>/run.json has no settings of a run",
    ),
    "predicting with another number of experts": (
        None,
        PREDICT | dict(num_experts=5),
        "--num_experts is 5, but <out>/best was trained with 2; leave the flag out to use the checkpoint's",
    ),
    "predicting with a checkpoint that does not exist": (
        None,
        PREDICT | dict(checkpoint_name="7-steps"),
        "--output_dir <out> --checkpoint_name 7-steps: no checkpoint there",
    ),
    "predicting with a plain BART": (
        None,
        PREDICT | dict(checkpoint="<bart>"),
        "<bart> holds a 'bart' model, not a routing BART",
    ),
    "a routing BART as the plain one": (
        None,
        dict(model="<out>/best", output_dir="<here>/new"),
        "--model <out>/best is a 'routing_bart' model; experts can only be made from a 'bart' model",
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_wrong_use_of_a_run_is_an_error(name, with_run, capsys):
    change, changed, *fragments = RUNS[name]
    if change:
        change(with_run)
    assert_fault(complaint(with_run, capsys, **changed), *map(with_run.filled_in, fragments))


def test_changed_training_data_is_not_resumed(with_run, capsys, originals, tmp_path):
    gym = Path(shutil.copytree(originals.gym, tmp_path / "changed"))
    file = gym / "colour/colour_12_100_train.tsv"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:2]))
    place = Place(tmp_path, originals.gym, originals.bart)
    settings = json.loads((place.out / "run.json").read_text())
    settings["settings"] |= {"train_dir": str(gym), "predict_dir": str(gym)}
    (place.out / "run.json").write_text(json.dumps(settings))
    output = complaint(place, capsys, resume=True, train_dir=gym, **ONE_STEP)
    assert_fault(output, f"--train_dir {gym}: the training data is not what the run in", "was trained on")


def test_a_checkpoint_without_a_vector_for_a_task_is_an_error(with_run, capsys, originals, tmp_path):
    split = tmp_path / "split.json"
    with_run.write(split, {"train": ["colour"], "test": ["count", "plural"]})
    config = without_plural(with_run.out / "best/config.json")
    with_run.write(with_run.out / "best/config.json", config)
    with_run.write(with_run.out / "best/id2task.json", dict(enumerate(config["task_names"])))
    output = complaint(
        with_run, capsys, **PREDICT, custom_tasks_splits=split, predict_split="test", task_vector="stored"
    )
    assert_fault(output, f"{with_run.out}/best has no task vector for plural", "without --task_vector stored")


def without_plural(path: Path) -> dict:
    config = json.loads(path.read_text())
    return config | {"task_names": [name for name in config["task_names"] if name != "plural"]}


def test_a_folder_with_other_content_is_not_overwritten(with_run, capsys):
    (with_run.out / "run.json").unlink()
    output = complaint(with_run, capsys, **ONE_STEP)
    assert_fault(output, f"--output_dir {with_run.out} holds best and last, but no run.json; name another")


def test_scores_with_other_routes_need_another_name(with_run, capsys):
    output = complaint(with_run, capsys, **PREDICT | dict(num_experts=None, router_mode="softmax"))
    assert_fault(output, "was trained with --router_mode gumbel_softmax_st", "give --prefix")
