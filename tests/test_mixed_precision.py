"""Whole commands in bf16, the scripts' precision on a GPU: a process has one, of the flag or the launcher."""

import pytest
import tiny_vectors
from tiny_grids import QUICK, finetune, results
from tiny_runs import run, typed

from routing_moe.cli import ablate

pytestmark = pytest.mark.usefixtures("empty_pictures")

BF16 = dict(mixed_precision="bf16")  # test_several_processes.py: all commands choose a precision in one place
SHORT = dict(total_steps=1, num_beams=1, max_output_length=4)


@pytest.fixture(scope="module")
def mixture(world):
    """A run of one step with straight-through routes. Must not be changed."""
    return world.run("mixture_for_precisions", init_eps=0.3, **SHORT)


def test_training_and_prediction_with_the_precision_of_the_launcher(world, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert run(world.gym, world.bart, tmp_path / "run", do_predict=True, **SHORT) == 0
    only_predicting = dict(do_train=None, initialize_from_vanilla=None, do_predict=True, total_steps=None)
    only_predicting |= dict(mixed_precision="no")  # the flag wins
    assert run(world.gym, None, tmp_path / "run", **only_predicting) == 0


@pytest.mark.parametrize(
    ("training", "vector"), [("merged", "nearest"), ("fixed", "stored"), ("router", "learned")]
)
def test_fine_tuning_with_vectors_and_routes(grids, mixture, tmp_path, training, vector):
    flags = QUICK | SHORT | dict(moe_init=True, init_dir=mixture, learning_rate_list=[0.03])
    flags |= dict(route_training=training, task_vector=vector) | BF16
    learns = vector == "learned"
    if vector == "stored":  # of a task of the run
        flags["task_dir"] = grids.gym / "colour"
    flags["vector_steps"] = 2 if learns else None
    assert finetune(grids.gym, grids.bart, tmp_path / "grid", **flags) == 0
    assert all(results(tmp_path / "grid")["route"].str.contains("vector learned from 12 examples") == learns)


def test_ablation(mixture, tmp_path):
    command = [mixture, "--max_examples", "1", "--output_dir", tmp_path / "ablation"]
    assert ablate.main([*map(str, command), *typed(BF16)]) == 0


@pytest.mark.parametrize("method", ["finetuned_text", "fisher", "gradient"])
def test_task_vectors(world, tmp_path, method):
    flags = BF16 | dict(tasks=["colour"])
    assert tiny_vectors.run(method, world.gym, world.bart, tmp_path / "vectors", **flags) == 0
