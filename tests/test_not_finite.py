"""Weights that are not finite are refused by every command that loads them, with the file and the tensor."""

import math

import pytest
import tiny_vectors
import torch
from accelerate.state import AcceleratorState
from conftest import tiny_bart_config
from mistakes import Place, assert_fault
from safetensors.torch import load_file, save_file
from tiny_grids import finetune
from tiny_runs import contents, run, typed, write_bart

from dataloader.errors import InputError
from routing_moe import RoutingBartForConditionalGeneration
from routing_moe.cli.ablate import main as ablate
from routing_moe.cli.inspect_routes import main as inspect_routes
from routing_moe.cli.merge import main as merge
from routing_moe.model.loading import check_finite

OF_AN_EXPERT = "model.decoder.layers.0.experts.1.fc1.weight"
OF_A_BART = "model.encoder.layers.1.fc2.bias"


def corrupt(file, name, value=math.nan):
    """Makes two values of a tensor in a file of weights not finite."""
    state = load_file(file)
    state[name].view(-1)[[0, 3]] = value
    save_file(state, file, {"format": "pt"})


@pytest.fixture
def place(with_run):
    """A run whose best and last checkpoints have weights that are not finite, and such a BART in bart/."""
    write_bart(with_run.folder / "bart")
    for name in ("best", "last"):
        corrupt(with_run.out / name / "model.safetensors", OF_AN_EXPERT)
    corrupt(with_run.folder / "bart/model.safetensors", OF_A_BART, -math.inf)
    torch.save(load_file(with_run.folder / "bart/model.safetensors"), with_run.folder / "bart.pt")
    return with_run


def merged(place, **changed):
    chosen = dict(routes_from=place.out, model=place.bart, output_dir=place.folder / "new") | changed
    return merge(typed(chosen))


def trained(place, output_dir="new", **changed):
    return run(place.gym, place.bart, place.folder / output_dir, **dict(total_steps=1) | changed)


def tuned(place, **changed):
    changed = {"task_dir": place.gym / "plural", "max_output_length": 6} | changed
    return finetune(place.gym, place.bart, place.folder / "new", **changed)


def vectors(place, model):
    return tiny_vectors.run("text", place.gym, model, place.folder / "new")


RUN, BART = "<out>/best/model.safetensors", "<here>/bart/model.safetensors"
NO_START = dict(initialize_from_vanilla=None, model=None, init_eps=None)
COMMANDS = {
    "train --checkpoint": (lambda p: trained(p, **NO_START, checkpoint=p.out / "best"), RUN),
    "train --resume": (lambda p: trained(p, "out", resume=True), RUN.replace("best", "last")),
    "train --model": (lambda p: trained(p, model=p.folder / "bart"), f"--model {BART}"),
    "train --vanilla_checkpoint, a file": (
        lambda p: trained(p, vanilla_checkpoint=p.folder / "bart.pt"),
        "--vanilla_checkpoint <here>/bart.pt",
    ),
    "train --vanilla_checkpoint, a folder": (
        lambda p: trained(p, vanilla_checkpoint=p.folder / "bart"),
        f"--vanilla_checkpoint {BART}",
    ),
    "merge --routes_from": (merged, f"--routes_from {RUN}"),
    "finetune --model": (lambda p: tuned(p, model=p.folder / "bart"), BART),
    "task_emb.text --model, a BART": (lambda p: vectors(p, p.folder / "bart"), BART),
    "task_emb.text --model, a run": (lambda p: vectors(p, p.out), RUN),
    "ablate": (lambda p: ablate([str(p.out)]), RUN),
    "inspect_routes": (
        lambda p: inspect_routes([str(p.out / "best"), "--output_dir", str(p.folder / "new")]),
        RUN,
    ),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_refuses_weights_that_are_not_finite(name, place, capsys):
    command, file = COMMANDS[name]
    before = contents(place.out)
    AcceleratorState._reset_state(reset_partial_state=True)
    assert command(place) == 2
    output = capsys.readouterr().err
    tensor = OF_A_BART if "bart" in file else OF_AN_EXPERT
    fault = f"{place.filled_in(file)} has weights that are not finite: {tensor} (2 of "
    assert_fault(output.splitlines(), fault)
    assert "Traceback" not in output
    assert contents(place.out) == before


def test_routes_can_come_from_a_run_of_the_published_code(tmp_path):
    place, name = Place(tmp_path, None, None), "model.encoder.layers.0.blocks.1.fc1.bias"
    config = tiny_bart_config(decoder_layers=1).to_dict() | {"router_block_num": 2}
    place.write(tmp_path / "run/config.json", config)
    place.vectors(["colour"])
    (tmp_path / "vectors").rename(tmp_path / "run/best")
    state = {"model.shared.weight": torch.ones(3, 2), name: torch.tensor([1, math.inf])}
    torch.save(state, tmp_path / "run/best/model.pt")
    with pytest.raises(InputError) as raised:
        RoutingBartForConditionalGeneration.from_upstream(tmp_path / "run")
    assert raised.value.faults[0].startswith(
        f"{tmp_path}/run/best/model.pt has weights that are not finite: {name} (1 of 2 values)"
    )


def test_from_bart_refuses_a_folder(place):
    with pytest.raises(InputError, match=f"bart/model.safetensors has .* {OF_A_BART} "):
        RoutingBartForConditionalGeneration.from_bart(str(place.folder / "bart"))


def test_the_first_of_many_tensors_are_named_and_integer_or_empty_ones_are_valid():
    check_finite({"whole": torch.ones(2, dtype=torch.int64), "empty": torch.empty(0)}, "a.pt")
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        for value in (math.nan, math.inf, -math.inf):
            broken = {f"t{i}": torch.tensor([1, value], dtype=dtype) for i in range(9)}
            with pytest.raises(InputError, match=r"a\.pt has .* t0 \(1 of 2 values\), .* and 4 more"):
                check_finite(broken, "a.pt")
