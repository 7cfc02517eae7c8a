"""The BART that low-rank experts share: saved models refer to it, and loading checks it."""

import json

import pytest
import torch
from conftest import tiny_bart_config
from safetensors.torch import load_file
from tiny_backbones import make_differ
from tiny_runs import assert_equal
from transformers import AutoModelForSeq2SeqLM, BartForConditionalGeneration

from dataloader.errors import InputError
from routing_moe import RoutedModel, RoutingBartConfig, RoutingBartForConditionalGeneration
from routing_moe.model.base import is_of_base, refer_to_base
from routing_moe.model.mixtures import load_mixture

LORA = dict(expert_kind="lora", lora_rank=3, lora_alpha=6)


@pytest.fixture
def saved_bart(tmp_path):
    """The folder of a plain BART."""
    BartForConditionalGeneration(tiny_bart_config()).save_pretrained(tmp_path / "bart")
    return tmp_path / "bart"


@pytest.fixture
def referring(saved_bart):
    """A model whose configuration refers to the BART that it was made of."""
    model = RoutingBartForConditionalGeneration.from_bart(
        str(saved_bart), 3, **LORA, task_names=["a"], router_input_dim=8, router_hidden_dim=4
    )
    make_differ(model)
    return model


def test_from_bart_makes_a_routed_model_of_a_copy_that_is_trained(batch):
    bart = BartForConditionalGeneration(tiny_bart_config()).eval()
    before = {name: tensor.clone() for name, tensor in bart.state_dict().items()}
    bart.generation_config.update(num_beams=3)
    model = RoutingBartForConditionalGeneration.from_bart(
        bart, 2, expert_kind="lora", task_names=["a"], router_input_dim=8, dropout=0.25
    )
    assert isinstance(model, RoutedModel)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    fields = ("num_experts", "lora_rank", "lora_alpha", "lora_targets", "label_smoothing", "base_model")
    assert [getattr(model.config, name) for name in fields] == [2, 16, 16, "all", 0.1, None]
    assert (model.generation_config.num_beams, model.backbone.model.decoder.layers[0].dropout) == (3, 0.25)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert_equal(bart.state_dict(), before)
    plain = model.eval().to_bart(torch.zeros(4, 2))
    assert type(plain) is BartForConditionalGeneration
    padded = batch | {"labels": batch["labels"].masked_fill(batch["labels"] == -100, 1)}
    shifted = model.backbone.prepare_decoder_input_ids_from_labels(padded["labels"])
    ways = (batch, padded, padded | {"decoder_input_ids": shifted})
    losses = [model(**way, task_ids=torch.zeros(4, dtype=torch.long)).loss.item() for way in ways]
    assert losses[0] == losses[1] == losses[2]
    with pytest.raises(InputError, match="lora_rang is no field of a mixture"):
        RoutingBartForConditionalGeneration.from_bart(bart, 2, expert_kind="lora", lora_rang=2)
    with pytest.raises(Exception, match="low-rank experts of a BART are those of a RoutedModel"):
        RoutingBartConfig(expert_kind="lora")


@pytest.mark.parametrize("cls", [RoutingBartForConditionalGeneration, AutoModelForSeq2SeqLM])
def test_a_saved_model_refers_to_a_base_that_was_not_trained(referring, tmp_path, cls):
    referring.save_pretrained(tmp_path / "saved")
    stored = load_file(tmp_path / "saved/model.safetensors")
    assert stored
    assert not any(is_of_base(name) for name in stored)
    loaded = cls.from_pretrained(tmp_path / "saved")
    assert loaded.state_dict().keys() == referring.state_dict().keys()
    assert all(torch.equal(t, referring.state_dict()[name]) for name, t in loaded.state_dict().items())


@pytest.mark.parametrize("fields", [{}, LORA])
def test_fields_of_other_versions_do_not_change_what_is_loaded(fields, make_model, tmp_path):
    model = make_model(2, **fields)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"former_field": 2}))
    loaded = load_mixture(tmp_path)
    assert_equal(loaded.state_dict(), model.state_dict())


def test_a_base_that_was_trained_is_saved(referring, tmp_path):
    with torch.no_grad():
        referring.get_input_embeddings().weight[5] += 1
    referring.save_pretrained(tmp_path / "saved")
    loaded = RoutingBartForConditionalGeneration.from_pretrained(tmp_path / "saved")
    assert loaded.config.base_model is None
    assert_equal(loaded.state_dict(), referring.state_dict())


def test_another_base_is_refused(referring, saved_bart, tmp_path):
    referring.save_pretrained(tmp_path / "saved")
    BartForConditionalGeneration(tiny_bart_config(init_std=0.1)).save_pretrained(saved_bart)
    with pytest.raises(InputError, match="not the model that the experts were trained on"):
        RoutingBartForConditionalGeneration.from_pretrained(tmp_path / "saved")


def test_a_run_of_one_expert_can_be_the_base(make_model, tmp_path):
    dense = make_model(1, torch.float32)
    dense.save_pretrained(tmp_path / "dense")
    model = RoutingBartForConditionalGeneration.from_bart(
        dense.to_bart(torch.ones(4, 1)), 2, **LORA, task_names=["a"], router_input_dim=8, router_hidden_dim=4
    )
    refer_to_base(model, tmp_path / "dense")
    model.save_pretrained(tmp_path / "saved")
    loaded = RoutingBartForConditionalGeneration.from_pretrained(tmp_path / "saved")
    assert all(torch.equal(t, model.state_dict()[name]) for name, t in loaded.state_dict().items())


def test_a_run_as_base_gives_weights_but_no_dropout_and_has_one_expert(make_model, tmp_path):
    base = make_model(1, torch.float32, bart_fields=dict(dropout=0.0))
    base.save_pretrained(tmp_path / "base")
    fields = dict(LORA, task_names=["a"], route_source="average", dropout=0.4)
    model = RoutingBartForConditionalGeneration.from_bart(base.to_plain(), 2, **fields)
    refer_to_base(model, tmp_path / "base")
    model.save_pretrained(tmp_path / "model")
    loaded = RoutedModel.from_pretrained(tmp_path / "model")
    assert loaded.config.backbone.dropout == loaded.backbone.model.encoder.layers[0].dropout == 0.4
    assert_equal(loaded.state_dict(), model.state_dict())
    make_model(3, torch.float32).save_pretrained(tmp_path / "base")
    with pytest.raises(InputError, match=r"base: not the model that .* it is a mixture of 3 experts"):
        RoutedModel.from_pretrained(tmp_path / "model")
