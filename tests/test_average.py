"""The mean of the weights of several models, and of the experts of a mixture, as one BART."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from test_assemble import batch_of, logits_of
from test_task_routes import FIXED, ONLY
from tiny_grids import ONE_EXPERT
from tiny_runs import NO_LEARNING, TRAIN_TASKS, run, typed, weights, write_bart

from routing_moe import RoutingBartForConditionalGeneration
from routing_moe.checkpoints.find import find_model
from routing_moe.cli.average import main
from routing_moe.finetuning.starting_model import along_route

pytestmark = pytest.mark.usefixtures("no_gpu", "quick_pictures")


def averaged(place, *runs, **changed):
    """Returns the model of the mean of runs, and its folder."""
    assert main(typed(dict(runs=list(runs), output_dir=place / "mean") | changed)) == 0
    return RoutingBartForConditionalGeneration.from_pretrained(place / "mean"), place / "mean"


@pytest.fixture(scope="module")
def dense(world):
    """Two runs of one expert with other seeds."""
    seeds = {"average/one": 42, "average/other": 43}
    flags = ONE_EXPERT | dict(learning_rate=0.01)
    return [world.run(name, **flags, seed=seed) for name, seed in seeds.items()]


def test_the_mean_of_runs_is_trained_further_and_costs_what_they_cost(dense, world, tmp_path, capsys):
    model, folder = averaged(tmp_path, *dense)
    barts = [find_model(place).load().to_bart() for place in dense]
    for name, tensor in model.to_bart().state_dict().items():
        expected = torch.stack([bart.state_dict()[name] for bart in barts]).mean(dim=0)
        torch.testing.assert_close(tensor, expected)
    assert not torch.equal(*(bart.model.shared.weight for bart in barts))
    assert f"mean of 2 models written to {folder}" in capsys.readouterr().out
    assert model.config.task_names == model.config.trained_tasks == TRAIN_TASKS
    assert model.config.text_settings == find_model(dense[0]).config.text_settings
    start = ONE_EXPERT | NO_LEARNING | dict(vanilla_checkpoint=folder)
    further = tmp_path / "further"
    assert run(world.gym, world.bart, further, **start) == 0
    assert all(torch.equal(t, weights(folder)[name]) for name, t in weights(further / "best").items())
    assert f"no cost.json with {folder}" in json.loads((further / "cost.json").read_text())["start_unknown"]
    assert run(world.gym, world.bart, tmp_path / "scored", **ONLY, checkpoint=folder) == 0
    assert list(tmp_path.glob("scored/*/eval-test_tasks-test-performance.csv"))


@pytest.mark.parametrize("kind", ["layer", "lora"])
def test_a_mixture_counts_as_the_mean_of_its_experts_as_in_fine_tuning(kind, world, tmp_path):
    flags = dict(expert_kind=kind, task_level_random_routing=True, num_experts=3, total_steps=1)
    flags |= dict(lora_rank=2) if kind == "lora" else {}
    mixture = world.run(f"average/{kind}", **FIXED | flags)
    model, _ = averaged(tmp_path, mixture)
    if kind == "layer":
        saved, own = weights(mixture / "best"), model.to_bart().state_dict()
        for name in ("encoder.layers.0.{}fc1.weight", "decoder.layers.0.{}self_attn.k_proj.bias"):
            experts = [saved["model." + name.format(f"experts.{e}.")] for e in range(3)]
            torch.testing.assert_close(own["model." + name.format("")], torch.stack(experts).mean(0))
            assert not torch.equal(experts[0], experts[1])

    class Flags:
        chosen_source, route_training, task = "average", "merged", "colour"

    start, words = along_route(find_model(mixture).load(), Flags, None)
    assert words == "average; merged plain model"
    inputs = batch_of(world.bart)
    torch.testing.assert_close(logits_of(model, inputs), logits_of(start, inputs))


def test_models_that_have_no_mean_are_an_error(world, tmp_path, capsys):
    bart, wide = world.bart, write_bart(tmp_path / "wide", encoder_ffn_dim=48)
    other = Path(shutil.copytree(bart, tmp_path / "other"))
    tokens = json.loads((other / "tokenizer.json").read_text())
    words = tokens["model"]["vocab"]
    words |= dict(zip(words, [*words.values()][::-1], strict=True))
    (other / "tokenizer.json").write_text(json.dumps(tokens))
    for changed, problem in (
        (dict(runs=[bart, wide]), f"--runs {wide} has encoder_ffn_dim 48; {bart} has "),
        (dict(runs=[bart, other]), f"--runs {other} has another vocabulary than {bart}"),
        (dict(runs=[bart, f"{bart}/"]), "--runs names a model twice"),
        (dict(runs=[bart, "nowhere/none/x"]), "--runs nowhere/none/x: not found"),
        (dict(output_dir=bart), f"--output_dir {bart} exists already"),
    ):
        assert main(typed(dict(runs=[bart], output_dir=tmp_path / "mean") | changed)) == 2
        assert f"error: {problem}" in capsys.readouterr().err
        assert not (tmp_path / "mean").exists()
