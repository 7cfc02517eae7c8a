"""Wrong input of commands that start from a trained run: flags, files, damaged weights, output folders."""

import json
import math
import os
import shutil
from pathlib import Path

import pytest
import torch
from conftest import tiny_bart_config, without_pictures
from mistakes import Place, assert_problem, check, complaint
from safetensors.torch import load_file, save_file
from test_task_routes import FIXED, FORMS, ONLY
from test_wrong_input import CLUSTERS, cases, routes, vectors
from tiny_runs import reopen, run, weights, write_bart, write_gym
from tiny_vectors import METHODS

from dataloader.errors import InputError
from routing_moe.io.files import unwritable
from routing_moe.model.loading import check_finite

pytestmark = pytest.mark.usefixtures("no_gpu", "quick_pictures")


STEP = dict(total_steps=1)
START = dict(initialize_from_vanilla=None, output_dir="<here>/further")
PREDICT = dict(do_train=None, initialize_from_vanilla=None, do_predict=True)


def foreign_state(place):
    reopen(place.out)
    path = place.out / "last/training_state.pt"
    state = torch.load(path, weights_only=True)
    torch.save(state | {"optimizer": {"state": {}, "param_groups": []}}, path)


def cut_weights(place):
    reopen(place.out)
    os.truncate(place.out / "last/model.safetensors", 3000)


def link(place):
    (place.folder / "link").symlink_to(place.folder / "nowhere")


def scored(**settings):
    return lambda place: place.write("out/best/eval-settings.json", {"settings": settings})


SCORED_WITH = dict.fromkeys(("predict_max_examples", "predict_temperature", "eval_sampled_routes"))
SCORED_WITH["predict_samples"] = "first"


def without_plural(place):
    """Removes the task of the split's test section from the checkpoint."""
    config = json.loads((place.out / "best/config.json").read_text())
    names = [name for name in config["task_names"] if name != "plural"]
    place.change("out/best/config.json", task_names=names)
    place.write(place.out / "best/id2task.json", dict(enumerate(names)))


RUNS = [
    (STEP, "--output_dir <out> already holds a run; give --resume to continue it, --do_predict to score"),
    (STEP | dict(resume=True, learning_rate=0.5), "--learning_rate is 0.5, but in the run to resume it"),
    (STEP | dict(resume=True, equal_flops="<out>"), "--equal_flops is <out>, but in the run to resume it"),
    (STEP | dict(resume=True), "<out>/last: its training state is not that of this run", foreign_state),
    (
        STEP | dict(resume=True),
        "<out>/last/model.safetensors is damaged ( ... without the folder last, --resume",
        cut_weights,
    ),
    (STEP, "--output_dir <out> holds best and last", lambda place: (place.out / "run.json").unlink()),
    (START | dict(checkpoint="<out>"), "<out>: no checkpoint there ... inside: <out>/best, <out>/last"),
    (START | dict(checkpoint="nowhere"), "nowhere: no such folder"),
    (START | dict(checkpoint="<out>/best", taskvecs="nowhere"), "--taskvecs nowhere is not a task-vector"),
    (START | dict(checkpoint="<out>/best", base_lr=1), "--base_lr is for what experts share: give"),
    (
        START | dict(output_dir="<here>/link/run"),
        "<here>/link/run: <here>/link is a dangling link; remove it, or create its target",
        link,
    ),
    (PREDICT | dict(num_experts=5), "--num_experts is 5, but <out>/best was trained with 2; leave the"),
    (PREDICT | dict(num_experts=None, router_mode="softmax"), "has another --router_mode"),
    (
        PREDICT | dict(custom_tasks_splits="<gym>/split.json"),
        "has scores of --custom_tasks_splits a; to",
        scored(custom_tasks_splits="a"),
    ),
    (PREDICT | dict(predict_max_examples=1), "--predict_max_examples is 1, but in", scored(**SCORED_WITH)),
    (PREDICT | dict(predict_samples="all"), "--predict_samples is all, but in", scored(**SCORED_WITH)),
    (PREDICT | dict(eval_sampled_routes=True), "--eval_sampled_routes is given", scored(**SCORED_WITH)),
    (PREDICT | dict(predict_temperature=5), "--predict_temperature is 5.0, but", scored(**SCORED_WITH)),
    (PREDICT | dict(checkpoint="<out>/best"), "--num_beams is 1, but in the scores", scored(num_beams=2)),
    (
        PREDICT | dict(predict_split="test", task_vector="stored"),
        "<out>/best has no vector for plural, only for",
        without_plural,
    ),
]


@cases(RUNS)
def test_a_wrong_use_of_a_run_is_an_error(changed, message, damage, with_run, capsys):
    check(with_run, capsys, "train", changed, message, damage)


@pytest.mark.parametrize("what", ["train files", "dev files", "metrics"])
def test_changed_training_data_is_not_resumed(what, with_run, capsys, originals, tmp_path):
    gym = Path(shutil.copytree(originals.gym, tmp_path / "changed"))
    if what == "metrics":
        with_run.change("changed/metrics.json", colour="Rouge-L")
    else:
        file = gym / f"colour/colour_12_100_{what.split()[0]}.tsv"
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:2]))
    settings = json.loads((with_run.out / "run.json").read_text())["settings"]
    reopen(with_run.out)
    with_run.change("out/run.json", settings=settings | {"train_dir": str(gym), "predict_dir": str(gym)})
    what += " of dev files (colour_12_100: metric ACC, now metric Rouge-L)" if what == "metrics" else ""
    message = f"--train_dir {gym}: the {what} are not those of the run in <out>"
    check(with_run, capsys, "train", STEP | dict(resume=True, train_dir=gym), message)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A place with runs of one step: "out" with clusters of vectors, "plain" without vectors."""
    folder = tmp_path_factory.mktemp("trained")
    place = Place(folder, write_gym(folder / "gym"), write_bart(folder / "bart"))
    vectors()(place)
    routes(FORMS)(place)
    flags = {name: place.filled_in(value) for name, value in CLUSTERS.items()}
    file = FIXED | dict(task_routes=folder / "routes.json")
    with without_pictures():
        assert run(place.gym, place.bart, place.out, **flags, total_steps=1) == 0
        assert run(place.gym, place.bart, folder / "plain", **file, total_steps=1) == 0
    shutil.rmtree(folder / "vectors")
    (folder / "routes.json").unlink()
    return place


ROUTE_FILE, VECTORS = dict(task_routes="<here>/routes.json"), dict(taskvecs="<here>/vectors")
RESUMED = FIXED | ROUTE_FILE | STEP | dict(resume=True, output_dir="<here>/plain")
OTHERS = "not the file that the run in <here>/plain began with"
CHECKPOINT = [
    (ONLY | dict(task_routes="tasks"), "--task_routes is tasks; without training give a file"),
    (ONLY | ROUTE_FILE, "--task_routes <here>/routes.json: the routes name 8", routes({"plural": 7})),
    (ONLY | ROUTE_FILE, "<here>/out/best has another route of plural", routes({"plural": 0, "colour": 0})),
    (ONLY | VECTORS, "--taskvecs <here>/vectors has vectors of 3 dimensions, but those of", vectors(D=3)),
    (ONLY | VECTORS | dict(output_dir="<here>/plain"), "--taskvecs <here>/vectors: the routes", vectors()),
    (RESUMED, f"--task_routes: {OTHERS}", routes(FORMS | {"colour": 1})),
    (ONLY | dict(task_level_random_routing=True), "<here>/out/best has another source of routes"),
]


@cases(CHECKPOINT)
def test_wrong_routes_for_a_checkpoint_are_an_error(changed, message, damage, trained, capsys):
    try:
        check(trained, capsys, "train", changed, message, damage)
    finally:
        shutil.rmtree(trained.folder / "vectors", ignore_errors=True)
        (trained.folder / "routes.json").unlink(missing_ok=True)


def without_a_weight(place):
    state = weights(place.out / "best")
    state.pop("router.units.0.hidden.bias")
    save_file(state, place.out / "best/model.safetensors", {"format": "pt"})


def published(place):
    """Writes a run of the published code into <here>/published."""
    config = tiny_bart_config(decoder_layers=1).to_dict() | {"router_block_num": 2}
    place.write("published/config.json", config)
    place.vectors(["colour"])
    (place.folder / "vectors").rename(place.folder / "published/best")
    place.write("published/best/model.pt", b"garbage")


def deeper(place):
    write_bart(place.folder / "deep", encoder_layers=1, decoder_layers=2)


PUBLISHED = dict(routes_from="<here>/published")
MERGES = [
    (dict(vanilla_checkpoint="<out>"), "--vanilla_checkpoint <out>/best is a mixture of 2 experts; give"),
    (dict(routes_from="<gym>"), "--routes_from <gym> is neither a run, with best/config.json, nor a"),
    ({}, "--routes_from <out>/best: its files lack 1 weights, such as", without_a_weight),
    (PUBLISHED, "--routes_from <here>/published/best/model.pt: not the weights of a run", published),
    (dict(model="<here>/deep"), "--model <here>/deep has 1+2 layers (encoder+decoder), but the", deeper),
    (dict(output_dir="<out>"), "<out>/init exists already", lambda p: shutil.copytree(p.gym, p.out / "init")),
    (dict(routes_from="<bart>"), "--routes_from <bart> holds a plain model, not a mixture of experts"),
]


@cases(MERGES)
def test_a_wrong_merge_is_an_error(changed, message, damage, with_run, capsys):
    check(with_run, capsys, "merge", changed, message, damage)


OF_AN_EXPERT = "model.decoder.layers.0.experts.1.fc1.weight"
OF_A_BART = "model.encoder.layers.1.fc2.bias"


def corrupt(file, name, value=math.nan):
    """Makes two values of a tensor in a file of weights not finite."""
    state = load_file(file)
    state[name].view(-1)[[0, 3]] = value
    save_file(state, file, {"format": "pt"})


@pytest.fixture
def broken(with_run):
    """A run whose best and last checkpoints have weights that are not finite, and such a BART in bart/."""
    write_bart(with_run.folder / "bart")
    for name in ("best", "last"):
        corrupt(with_run.out / name / "model.safetensors", OF_AN_EXPERT)
    reopen(with_run.out)
    corrupt(with_run.folder / "bart/model.safetensors", OF_A_BART, -math.inf)
    return with_run


NEW = dict(output_dir="<here>/new")
CHECKED = NEW | dict(initialize_from_vanilla=None, model=None, checkpoint="<out>/best")
RUN, BART = "<out>/best/model.safetensors", "<here>/bart/model.safetensors"
COMMANDS = {
    "train --checkpoint": (("train", CHECKED), RUN),
    "train --resume": (("train", STEP | dict(resume=True)), RUN.replace("best", "last")),
    "train --model": (("train", NEW | dict(model="<here>/bart")), f"--model {BART}"),
    "merge --routes_from": (("merge", {}), f"--routes_from {RUN}"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_refuses_weights_that_are_not_finite(name, broken, capsys):
    (command, given), file = COMMANDS[name]
    lines = complaint(broken, capsys, command, **given)
    tensor = OF_A_BART if "bart" in file else OF_AN_EXPERT
    assert_problem(lines, f"{broken.filled_in(file)} has weights that are not finite: {tensor} (2 of ")


def test_the_first_of_many_tensors_are_named_and_integer_or_empty_ones_are_valid():
    check_finite({"whole": torch.ones(2, dtype=torch.int64), "empty": torch.empty(0)}, "a.pt")
    for value, dtype in ((math.nan, torch.bfloat16), (-math.inf, torch.float64)):
        tensors = {f"t{i}": torch.tensor([1, value], dtype=dtype) for i in range(9)}
        with pytest.raises(InputError, match=r"a\.pt has .* t0 \(1 of 2 values\), .* and 4 more"):
            check_finite(tensors, "a.pt")


@pytest.mark.parametrize("command", ["train", "finetune", "merge", *METHODS])
def test_an_output_folder_inside_a_file_is_refused(command, with_run, capsys):
    lines = complaint(with_run, capsys, command, output_dir="<gym>/split.json/inside")
    assert_problem(lines, f"{with_run.gym}/split.json is a file; name a folder")


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path, monkeypatch):
    assert unwritable(tmp_path / "new" / "folder") is None
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    assert unwritable(tmp_path / "new") == f"{tmp_path / 'new'}: {tmp_path} cannot be written to"
