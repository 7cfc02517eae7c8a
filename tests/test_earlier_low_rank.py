"""Checkpoints of low-rank experts on a BART that were saved as a routing BART load as a `RoutedModel`."""

import json
import shutil

import pytest
import torch
from conftest import tiny_bart_config
from safetensors.torch import load_file, save_file
from tiny_backbones import make_differ
from tiny_runs import assert_equal, fail_in_step, weights
from transformers import AutoConfig, AutoModelForSeq2SeqLM, BartForConditionalGeneration

from dataloader.errors import InputError
from routing_moe import RoutedModel, RoutingBartForConditionalGeneration
from routing_moe.model.base import base_tensors, checksum
from routing_moe.model.configuration import Mixture
from routing_moe.model.mixtures import load_mixture

FIELDS = dict(task_names=["a", "b"], router_input_dim=8, router_hidden_dim=4, decoder_vanilla_layers=[1])


def rewrite_as_before(folder) -> None:
    """Gives a checkpoint the names of weights, fields and checksum of before."""
    config = json.loads((folder / "config.json").read_text())
    if config["base_model"]:
        tensors = base_tensors(RoutedModel.from_pretrained(folder))
        config["base_sha256"] = checksum({n.removeprefix("backbone."): t for n, t in tensors.items()})
    config = config.pop("backbone") | config
    config |= dict(model_type="routing_bart", architectures=["RoutingBartForConditionalGeneration"])
    (folder / "config.json").write_text(json.dumps(config))
    state = load_file(folder / "model.safetensors")
    save_file(
        {name.removeprefix("backbone."): tensor for name, tensor in state.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )


@pytest.fixture(params=["a folder", "a file", "a run", "none"])
def model(request, tmp_path):
    """A model whose base is in a folder, in a file, in a run of one expert, or saved with the experts."""
    bart = BartForConditionalGeneration(tiny_bart_config(init_std=0.2))
    bart.save_pretrained(tmp_path / "bart")
    torch.save(bart.state_dict(), tmp_path / "bart.pt")
    RoutingBartForConditionalGeneration.from_bart(bart, 1).save_pretrained(tmp_path / "dense")
    fields = FIELDS | dict(expert_kind="lora", lora_rank=2)
    model = RoutingBartForConditionalGeneration.from_bart(str(tmp_path / "bart"), 3, **fields)
    places = {"a folder": "bart", "a file": "bart.pt", "a run": "dense"}
    place = places.get(request.param)
    model.config.base_model = place and str(tmp_path / place)
    make_differ(model)
    return model.eval()


@pytest.mark.parametrize(
    "load",
    [
        load_mixture,
        RoutedModel.from_pretrained,
        RoutingBartForConditionalGeneration.from_pretrained,
        AutoModelForSeq2SeqLM.from_pretrained,
    ],
)
def test_weights_answers_and_fields_are_those_that_were_saved(model, load, batch, tmp_path):
    model.save_pretrained(tmp_path / "saved")
    rewrite_as_before(tmp_path / "saved")
    for config in (Mixture.load(tmp_path / "saved"), AutoConfig.from_pretrained(tmp_path / "saved")):
        assert config.mixture_fields().keys() == model.config.mixture_fields().keys()
        assert (config.depths, config.routed_rows) == (model.config.depths, model.config.routed_rows)
    loaded = load(tmp_path / "saved")
    assert isinstance(loaded, RoutedModel)
    assert_equal(loaded.state_dict(), model.state_dict())
    assert loaded.config.mixture_fields() == model.config.mixture_fields()
    ids = torch.tensor([0, 1, 1, 0])
    assert torch.equal(loaded(**batch, task_ids=ids).loss, model(**batch, task_ids=ids).loss)
    loaded.save_pretrained(tmp_path / "again")
    assert load_file(tmp_path / "again/model.safetensors").keys() == {
        name if name.startswith(("router.", "task_vectors.")) else f"backbone.{name}"
        for name in load_file(tmp_path / "saved/model.safetensors")
    }
    assert_equal(RoutedModel.from_pretrained(tmp_path / "again").state_dict(), model.state_dict())


def test_another_base_is_refused_also_of_equal_norms_and_biases(model, tmp_path):
    if model.config.base_model is None:
        pytest.skip("the base is saved with the experts")
    model.save_pretrained(tmp_path / "saved")
    rewrite_as_before(tmp_path / "saved")
    bart = model.to_bart(torch.zeros(4, 3))
    bart.model.encoder.layers[1].fc1.weight.data[2, 3] += 0.5
    shutil.rmtree(tmp_path / "bart")
    bart.save_pretrained(tmp_path / "bart")
    torch.save(bart.state_dict(), tmp_path / "bart.pt")
    RoutingBartForConditionalGeneration.from_bart(bart, 1).save_pretrained(tmp_path / "dense")
    with pytest.raises(InputError, match="not the model that the experts were trained on"):
        load_mixture(tmp_path / "saved")


@pytest.mark.usefixtures("quick_pictures")
@pytest.mark.parametrize("base_lr", [None, 0.01])
def test_a_run_is_resumed_as_if_it_had_not_been_interrupted(world, base_lr):
    flags = dict(expert_kind="lora", lora_rank=2, init_eps=None, base_lr=base_lr, save_period=2)
    whole = world.run(f"low_rank_{base_lr}", **flags)
    fail_in_step(6, lambda: world.run(f"earlier_{base_lr}", **flags))
    for name in ("last", "best"):
        rewrite_as_before(world / f"earlier_{base_lr}" / name)
    resumed = world.run(f"earlier_{base_lr}", **flags, resume=True)
    assert_equal(weights(resumed / "last"), weights(whole / "last"))
    assert (resumed / "losses.csv").read_text() == (whole / "losses.csv").read_text()
