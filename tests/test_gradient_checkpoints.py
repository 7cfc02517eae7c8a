"""Gradient vectors of several checkpoints of a run."""

import shutil

import numpy as np
import pytest
import tiny_vectors
import torch
from mistakes import complaint
from tiny_vectors import meta, same_vectors, vectors

from routing_moe.model.task_vectors import load_meta, parts_in
from task.task_emb.mean_gradient import projected

NAMES = ["2-steps", "4-steps"]
FLAGS = dict(tasks=["count"], checkpoint_names=NAMES)


def made(world, folder, **changed):
    assert tiny_vectors.run("gradient", world.gym, world.bart, folder, **changed) == 0
    return folder


def of_each(world, run, folder, **changed):
    """The vectors of two checkpoints, each by a command whose --model is the checkpoint's own folder."""
    chosen = dict(tasks=["count"], projection_dim=0) | changed
    return [vectors(made(world, folder / name, model=run / name, **chosen))["count"] for name in NAMES]


@pytest.mark.parametrize("weights", ["embeddings", "layers"])
def test_a_vector_consists_of_those_of_its_checkpoints_in_the_given_order(weights, finished, world, tmp_path):
    flags = FLAGS | dict(model=finished, projection_dim=0, weights=weights)
    first, second = of_each(world, finished, tmp_path, weights=weights)
    assert np.abs(first - second).max() > 1e-3
    both = vectors(made(world, tmp_path / "both", **flags))["count"]
    assert np.array_equal(both, np.concatenate([first, second]))
    turned = made(world, tmp_path / "turned", **flags | dict(checkpoint_names=NAMES[::-1]))
    assert np.array_equal(vectors(turned)["count"], np.concatenate([second, first]))
    assert "parts" not in meta(turned)


def test_a_part_consists_of_those_of_its_checkpoints(finished, world, tmp_path):
    flags = dict(weights="layers", parts="sides", projection_dim=0)
    first, second = of_each(world, finished, tmp_path, **flags)
    n, _ = parts_in(load_meta(tmp_path / NAMES[0]))["decoder"]
    folder = made(world, tmp_path / "both", model=finished, **FLAGS | flags)
    expected = np.concatenate([first[:n], second[:n], first[n:], second[n:]])
    assert np.array_equal(vectors(folder)["count"], expected)
    assert parts_in(load_meta(folder)) == {"encoder": (0, 2 * n), "decoder": (2 * n, len(expected))}


def test_every_checkpoint_is_projected_by_itself_and_equally_each_time(finished, world, tmp_path):
    flags = FLAGS | dict(model=finished, projection_dim=10)
    folder = made(world, tmp_path / "both", **flags)
    assert same_vectors(made(world, tmp_path / "again", **flags), folder)
    generator = torch.Generator().manual_seed(42)
    alone = of_each(world, finished, tmp_path)
    expected = np.concatenate([projected([torch.from_numpy(row)], 10, generator) for row in alone])
    np.testing.assert_allclose(vectors(folder)["count"], expected, rtol=1e-4, atol=1e-5)


def test_a_changed_checkpoint_is_detected(finished, fresh, capsys):
    run = shutil.copytree(finished, fresh.folder / "run")
    made(fresh, fresh.out, model=run, **FLAGS)
    shutil.copy(run / "6-steps/model.safetensors", run / "4-steps")
    (problem,) = complaint(fresh, capsys, "gradient", model=run, checkpoint_names=NAMES)
    assert (
        "its vectors were computed with a model whose files differ from those of the given model" in problem
    )


@pytest.mark.parametrize("names", [None, NAMES[::-1]])
def test_other_checkpoints_are_an_error(names, finished, fresh, capsys):
    made(fresh, fresh.out, model=finished, **FLAGS)
    problem = complaint(fresh, capsys, "gradient", model=finished, checkpoint_names=names)[0]
    given = " ".join(names) if names else "not given"
    assert (
        f"--checkpoint_names is {given}, but in the vectors in {fresh.out} it was 2-steps 4-steps" in problem
    )


def test_checkpoints_that_the_run_does_not_have_are_reported_with_those_it_has(finished, fresh, capsys):
    names = ["2-steps", "800-steps", "900-steps"]
    problems = complaint(fresh, capsys, "gradient", model=finished, checkpoint_names=names)
    there = "2-steps, 4-steps, 6-steps, best, last"
    assert problems == [
        f"error: --model {finished} has no checkpoint '{name}'; choose one with --checkpoint_names: {there}"
        for name in names[1:]
    ]
