"""What decoder-only models are published with: dates, settings of generation, padding, bfloat16."""

import re

import pytest
import torch
from tiny_backbones import plain_models
from transformers import AutoModelForCausalLM, AutoTokenizer

from dataloader.encoding import rendered
from dataloader.errors import InputError
from routing_moe import Routed, RoutedModel
from routing_moe.answering.queries import Query

plain = pytest.fixture(scope="module")(plain_models)
routed = pytest.fixture(lambda plain: Routed.load(plain("llama"), **SIZES))

TEXTS = ["the sky is", "b", "a long text of many words"]
SIZES = dict(max_input_length=40, max_output_length=8, num_beams=1)


def test_prompts_are_the_same_on_every_day_and_ask_for_no_thoughts(plain):
    tokenizer = AutoTokenizer.from_pretrained(plain("llama"))
    tokenizer.chat_template = (
        "{% set today = strftime_now('%d %b %Y') %}{{ today ~ '; ' ~ strftime_now('%d %B %Y') }}: "
        "{{ messages[0].content }}{% if enable_thinking | default(true) %}<think>{% endif %}"
    )
    assert rendered(tokenizer, "sky") == "26 Jul 2024; 26 July 2024: sky"


def test_a_padding_token_below_0_is_none(plain):
    base = AutoModelForCausalLM.from_pretrained(plain("llama"), pad_token_id=-1)
    assert RoutedModel.from_backbone(base, 2, route_source="average").config.pad_token_id == 1


def test_a_model_is_loaded_only_with_texts_that_it_can_read(plain):
    cases = {"are 65 together": dict(max_input_length=57), "an encoder": dict(generate_from_bos=True)}
    for problem, texts in cases.items():
        with pytest.raises(InputError, match=problem):
            Routed.load(plain("llama"), **SIZES | texts)
    assert RoutedModel.from_backbone(plain("llama"), 1, expert_kind="layer").config.base_model is None


def test_settings_of_sampling_and_lengths_are_replaced(routed, tmp_path, caplog):
    sampling = dict(do_sample=True, temperature=0.6, min_p=0.1, typical_p=0.9, eta_cutoff=0.1)
    routed.model.generation_config.update(**sampling, max_length=60)
    with caplog.at_level("WARNING", "transformers"):
        routed.export("a", tmp_path / "plain")
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
        inputs = routed.tokenizer(" [a] b", return_tensors="pt")
        (text,) = routed.tokenizer.batch_decode(model.generate(**inputs)[:, inputs["input_ids"].shape[1] :])
        assert routed.answer("a", ["b"]) == [text.removesuffix("</s>").strip()]
    assert not re.search("max_length|sampl", caplog.text)


def test_scores_of_a_base_in_bfloat16_are_computed_in_float32(routed):
    routed.model.to(torch.bfloat16)
    for found in routed.answers("a", map(Query, TEXTS)):
        assert float(torch.tensor(found.score).bfloat16()) != pytest.approx(found.score, rel=1e-5)


def test_evaluations_project_in_float32(routed):
    types, routed.accelerator.autocast = [], lambda: torch.autocast("cpu", torch.bfloat16)
    head, up = routed.model.get_output_embeddings(), routed.model.backbone.model.layers[0].mlp.up_proj
    for module in (head, up):
        module.register_forward_hook(lambda own, inputs, found: types.append((own is head, found.dtype)))
    assert routed.answer("a", TEXTS) + routed.answer("a", TEXTS, options=["b", "sky"])
    assert set(types) == {(True, torch.float32), (False, torch.bfloat16)}
