"""Whole commands on the emulated device: results of the CPU; a tensor that is left on the CPU is an error."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_vectors
import torch
from accelerate.state import AcceleratorState
from emulated_device import NAME, NEEDS_DEVICE, WrongDevice, counting, on_device
from tiny_grids import QUICK, learned, predictions
from tiny_runs import assert_same_run, contents, fail_in_step, run, typed, write_ranked_gym

from routing_moe.cli import ablate, export

pytestmark = NEEDS_DEVICE


@pytest.fixture(autouse=True)
def _no_pictures(empty_pictures):
    pass


@pytest.fixture(scope="module")
def mixture(world) -> Path:
    """A run of one step with soft routes of three experts. Must not be changed: copy it."""
    changed = dict(num_experts=3, init_eps=0.3, router_mode="softmax", total_steps=1, num_beams=1)
    return world.run("soft_mixture", **changed)


def in_both_places(command: Callable[[str], None]) -> None:
    """Runs command("on_cpu"), and command("on_device") on the device, which must be used."""

    def launches() -> int:
        with counting() as counts:
            command("on_device")
        return counts.launches.total()

    command("on_cpu")
    assert on_device(launches) > 100


# ---- commands


def test_a_run_that_stops_resumes_and_predicts(world):
    flags = dict(total_steps=2, eval_period=1, num_beams=1, do_predict=True)

    def command(name):
        if name == "on_device":
            fail_in_step(2, lambda: world.run(f"emulated/{name}", **flags))
        world.run(f"emulated/{name}", **flags, resume=name == "on_device")

    in_both_places(command)
    assert "resuming after step 1" in (world / "emulated/on_device/log.txt").read_text()
    assert_same_run(world / "emulated/on_device", world / "emulated/on_cpu")


@pytest.mark.parametrize("routes", [None, "lowest_loss"])
def test_a_fine_tuning_grid(grids, mixture, routes):
    flags = QUICK | dict(moe_init=True, init_dir=mixture, learning_rate_list=[0.03], task_routes=routes)
    in_both_places(lambda name: grids.run(f"{name}_{routes}", **flags))
    cpu, device = grids / f"on_cpu_{routes}", grids / f"on_device_{routes}"
    assert learned(device) == learned(cpu)
    assert predictions(device) == predictions(cpu)


@pytest.mark.parametrize("method", ["fisher", "gradient", "text"])
def test_task_vectors(world, mixture, tmp_path, method):
    start = dict(tasks=["colour", "count"]) | (dict(model=mixture) if method != "fisher" else {})

    def command(name):
        assert tiny_vectors.run(method, world.gym, world.bart, tmp_path / name, **start) == 0

    in_both_places(command)
    assert tiny_vectors.same_vectors(tmp_path / "on_device", tmp_path / "on_cpu")


def run_ablation(mixture: Path, output_dir: Path) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    assert ablate.main([str(mixture), "--max_examples", "1", "--output_dir", str(output_dir)]) == 0


def test_an_ablation(mixture, tmp_path):
    in_both_places(lambda name: run_ablation(mixture, tmp_path / name))
    on_device, on_cpu = (tmp_path / name / "tasks.csv" for name in ("on_device", "on_cpu"))
    assert on_device.read_bytes() == on_cpu.read_bytes()


def test_the_export_of_a_trained_base_with_its_experts(world, tmp_path):
    flags = dict(expert_kind="lora", base_lr=0.01, total_steps=1, num_beams=1)
    run_of_lora = world.run("trained_base", **flags)

    def command(name):
        AcceleratorState._reset_state(reset_partial_state=True)
        words = dict(checkpoint=run_of_lora, adapters=True, output_dir=tmp_path / name)
        assert export.main(typed(words)) == 0

    in_both_places(command)
    cpu, device = (contents(tmp_path / name / "base") for name in ("on_cpu", "on_device"))
    assert device == cpu


def rank_options(mixture: Path, folder: Path, **changed) -> None:
    """Ranks the options of test tasks in a copy of the mixture."""
    gym = write_ranked_gym(folder / "gym")
    shutil.copytree(mixture, folder / "run")
    flags = dict(do_train=False, do_predict=True, predict_split="test", scoring="rank")
    flags |= dict(initialize_from_vanilla=None, num_experts=None, init_eps=None, num_beams=1)
    assert run(gym, None, folder / "run", **flags | changed) == 0


@pytest.mark.parametrize("changed", [{}, dict(task_routes="lowest_loss", prefix="loss-")], ids=str)
def test_ranking_of_options(mixture, tmp_path, changed):
    in_both_places(lambda name: rank_options(mixture, tmp_path / name, **changed))
    cpu, device = (contents(tmp_path / name / "run/best/predictions") for name in ("on_cpu", "on_device"))
    assert b'"scores"' in cpu[f"{changed.get('prefix', '')}given_6_13_test.jsonl"]
    assert device == cpu


# ---- planted defects


def leave_on_cpu(module: str) -> None:
    """Makes moves to the device do nothing in a module of the project, as if `.to(device)` were missing."""
    move = torch.Tensor.to

    def moved(tensor, *args, **kwargs):
        is_of_module = sys._getframe(1).f_globals["__name__"] == module
        to_device = any(getattr(argument, "type", None) == NAME for argument in args)
        return tensor if is_of_module and to_device else move(tensor, *args, **kwargs)

    torch.Tensor.to = moved


DEFECTS = {
    "routing_moe.io.transfer": lambda world, mixture, folder: world.run(folder.name, total_steps=1),
    "routing_moe.evaluation.text_vectors": lambda world, mixture, folder: rank_options(mixture, folder),
    "routing_moe.evaluation.option_ranking": lambda world, mixture, folder: rank_options(mixture, folder),
    "routing_moe.evaluation.batches": lambda world, mixture, folder: run_ablation(mixture, folder),
}


# Modules that use what others have moved.
USERS = {
    "routing_moe.io.transfer": "routing_moe.optim.step",
    "routing_moe.evaluation.batches": "routing_moe.model.modeling",
}


@pytest.mark.parametrize("module", DEFECTS)
def test_a_missing_move_to_the_device_is_found(world, mixture, tmp_path, module):
    def defective():
        leave_on_cpu(module)
        return DEFECTS[module](world, mixture, tmp_path)

    user = USERS.get(module, module).replace(".", "/")  # its file is in the traceback
    with pytest.raises(WrongDevice, match=f"{user}.py"):
        on_device(defective)
