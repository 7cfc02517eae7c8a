"""What decoder-only models are published with: dates, settings of generation, padding, bfloat16."""

import json
import re
from types import SimpleNamespace

import pytest
import torch
from tiny_backbones import make_differ, plain_models
from transformers import AutoModelForCausalLM, AutoTokenizer

from dataloader.encoding import rendered
from dataloader.errors import InputError
from routing_moe import Routed, RoutedModel
from routing_moe.answering.queries import Query
from routing_moe.model.loading import load_backbone

plain = pytest.fixture(scope="module")(plain_models)

TEXTS = ["the sky is", "b", "a long text of many words"]
SIZES = dict(max_input_length=40, max_output_length=8, num_beams=1)


@pytest.fixture
def published(plain, tmp_path):
    """published(dtype, **generation): a `Routed` of a saved mixture, with these settings of generation."""

    def routed(dtype=torch.float32, **generation) -> Routed:
        place = tmp_path / "mixture"
        base = load_backbone(plain("llama"), dtype=dtype)
        torch.manual_seed(0)
        model = RoutedModel.from_backbone(base, 2, lora_rank=2, task_names=["a"], route_source="average")
        make_differ(model)
        model.save_pretrained(place)
        AutoTokenizer.from_pretrained(plain("llama")).save_pretrained(place)
        settings = json.loads((place / "generation_config.json").read_text())
        (place / "generation_config.json").write_text(json.dumps(settings | generation))
        return Routed.load(place, **SIZES)

    return routed


def test_prompts_are_the_same_on_every_day_and_ask_for_no_thoughts(plain):
    tokenizer = AutoTokenizer.from_pretrained(plain("llama"))
    tokenizer.chat_template = (
        "{% set today = strftime_now('%d %b %Y') %}{{ today ~ '; ' ~ strftime_now('%d %B %Y') }}: "
        "{{ messages[0].content }}{% if enable_thinking | default(true) %}<think>{% endif %}"
    )
    assert rendered(tokenizer, "sky") == "26 Jul 2024; 26 July 2024: sky"


def test_a_padding_token_below_0_is_none(plain):
    base = load_backbone(plain("llama"))
    base.config.pad_token_id = -1
    assert RoutedModel.from_backbone(base, 2, route_source="average").config.pad_token_id == 1


def test_a_model_is_loaded_only_with_texts_that_it_can_read(published, plain):
    place = published().place
    for texts, problem in (
        (dict(max_input_length=57), "max_output_length are 65 together, but"),
        (dict(generate_from_bos=True), "generate_from_bos is for models with an encoder"),
        (dict(num_beams=0), "num_beams is 0; it must be at least 1"),
    ):
        with pytest.raises(InputError, match=problem):
            Routed.load(place, **SIZES | texts)
    one = RoutedModel.from_backbone(str(plain("llama")), 1, expert_kind="layer")
    assert one.config.base_model is None
    assert all(p.requires_grad for p in one.parameters())


def test_settings_of_sampling_and_lengths_are_replaced(published, tmp_path, caplog):
    sampling = dict(do_sample=True, temperature=0.6, min_p=0.1, typical_p=0.9, eta_cutoff=0.1, max_length=60)
    routed = published(**sampling)
    with caplog.at_level("WARNING", "transformers"):
        routed.export("a", tmp_path / "plain")
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
        inputs = routed.tokenizer(" [a] b", return_tensors="pt")
        tokens = model.generate(**inputs)[0, inputs["input_ids"].shape[1] :]
        answer = routed.tokenizer.decode(tokens, skip_special_tokens=True).strip()
        assert routed.answer("a", ["b"]) == [answer]
    assert not re.search("max_length|sampl", caplog.text)


def test_scores_of_a_base_in_bfloat16_are_computed_in_float32(published):
    routed = published(torch.bfloat16)
    for found in routed.answers("a", map(Query, TEXTS)):
        assert float(torch.tensor(found.score).bfloat16()) != pytest.approx(found.score, rel=1e-5)


def test_evaluations_project_in_float32(published):
    routed, types = published(), []
    routed.accelerator = SimpleNamespace(autocast=lambda: torch.autocast("cpu", torch.bfloat16))
    head, up = routed.model.get_output_embeddings(), routed.model.backbone.model.layers[0].mlp.up_proj
    for module in (head, up):
        module.register_forward_hook(lambda own, inputs, found: types.append((own is head, found.dtype)))
    routed.answer("a", TEXTS)
    routed.answer("a", TEXTS, options=["b", "sky"])
    assert set(types) == {(True, torch.float32), (False, torch.bfloat16)}
