"""The BART that low-rank experts share: saved models refer to it, and loading checks it."""

import json

import pytest
import torch
from conftest import tiny_bart_config
from tiny_runs import assert_equal
from transformers import BartForConditionalGeneration

from dataloader.errors import InputError
from routing_moe import RoutedModel, RoutingBartConfig, RoutingBartForConditionalGeneration
from routing_moe.model.base import refer_to_base
from routing_moe.model.mixtures import load_mixture

LORA = dict(expert_kind="lora", lora_rank=3, lora_alpha=6)


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


@pytest.mark.parametrize("fields", [{}, LORA])
def test_fields_of_other_versions_do_not_change_what_is_loaded(fields, make_model, tmp_path):
    model = make_model(2, **fields)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"former_field": 2}))
    loaded = load_mixture(tmp_path)
    assert_equal(loaded.state_dict(), model.state_dict())


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
