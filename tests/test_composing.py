"""Composed routes: words of groups, encoders that are found by losses, and the command."""

import json

import numpy as np
import pytest
import torch
from conftest import one_hot_routes
from tiny_runs import run
from tiny_steps import encoded

from dataloader.errors import InputError
from routing_moe.analysis.composing import composed_routes
from routing_moe.cli.compose import main
from routing_moe.io.accelerator import make_accelerator
from routing_moe.model.route_codes import grouped_words
from routing_moe.results.run_cost import read_cost


@pytest.mark.parametrize("groups", [[0, 0, 1, 1], [0, 1, 0, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2]])
def test_words_of_a_group_share_the_first_layers_and_are_all_different(groups):
    words_KL = grouped_words(np.array(groups), 2, 2, 3)
    assert (words_KL[:, :2] == np.array(groups)[:, None]).all()
    assert ((words_KL >= 0) & (words_KL < 3)).all()
    assert len(np.unique(words_KL, axis=0)) == len(groups)


def test_a_group_with_more_members_than_words_is_refused():
    with pytest.raises(ValueError, match="4 clusters"):
        grouped_words(np.array([0, 0, 0, 0]), 2, 1, 3)


@pytest.fixture
def mixture(make_model):
    """A mixture of four experts for four tasks; experts 0 and 2, and 1 and 3, have equal encoders."""
    model = make_model(num_experts=4, route_source="fixed")
    with torch.no_grad():
        for layer in model.routed_layers()[:2]:
            for p in layer.parameters():
                p.add_(0.5 * torch.randn_like(p))
            for expert in (2, 3):
                layer.experts[expert].load_state_dict(layer.experts[expert - 2].state_dict())
    model.task_routes.copy_(one_hot_routes([[n] * 4 for n in range(4)], 4))
    return model


@pytest.fixture
def rows():
    draw = np.random.default_rng(4)
    texts = [[0, *draw.integers(4, 60, draw.integers(1, 9)), 2] for _ in range(48)]
    return encoded(texts[:24], texts[24:], [i % 4 for i in range(24)])


def test_clusters_whose_encoders_do_the_same_share_the_encoder(mixture, rows):
    routes, group_K = composed_routes(mixture, rows, 2, make_accelerator("no"))
    assert group_K.tolist() in ([0, 1, 0, 1], [1, 0, 1, 0])
    assert routes["a"][:2] == routes["c"][:2] != routes["b"][:2] == routes["d"][:2]
    assert routes["a"][2] != routes["c"][2]


def test_too_many_experts_and_tasks_of_several_experts_are_refused(mixture, rows):
    with pytest.raises(InputError, match="4 experts in use"):
        composed_routes(mixture, rows, 4, make_accelerator("no"))
    mixture.task_routes[0] = one_hot_routes([[0, 0, 0, 1]], 4)[0]
    with pytest.raises(InputError, match="one expert for each task"):
        composed_routes(mixture, rows, 2, make_accelerator("no"))


@pytest.mark.usefixtures("quick_pictures")
def test_the_command_writes_routes_that_training_reads(world, tmp_path):
    path = tmp_path / "routes.json"
    path.write_text(json.dumps({"colour": 0, "count": 1, "opposite": 2}))
    mixture = world.run("to_compose", task_routes=path, num_experts=3, total_steps=2)
    assert main([str(mixture), "--num_experts", "2", "--rows", "12"]) == 0
    routes = json.loads((mixture / "composed2_routes.json").read_text())
    assert routes.keys() == {"colour", "count", "opposite"}
    composed = mixture / "composed2_routes.json"
    assert run(world.gym, world.bart, tmp_path / "run", task_routes=composed, total_steps=1) == 0
    # The losses of all 72 rows along 9 routes cost at most a third of a step with as many rows.
    *_, losses = (cost := read_cost(tmp_path / "run"))["earlier_runs"]
    assert losses["total_flops"] == int((mixture / "composed2_routes.flops").read_text())
    of_steps = 72 * cost["flops_per_example_unpadded"] / 3
    assert 0.6 < losses["total_flops"] / (9 * of_steps) < 1.2
    assert cost["steps_with_start"] == 1 + 2


@pytest.mark.parametrize(
    ("flags", "words"), [([], "given routes"), (["--output_file", "routes.txt"], "must end in .json")]
)
def test_a_run_with_a_router_and_a_wrong_file_are_refused(finished, capsys, flags, words):
    assert main([str(finished), "--num_experts", "2", *flags]) == 2
    assert words in capsys.readouterr().err
