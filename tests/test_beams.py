"""Beams that share the encoder's states of their input give the sequences of the library's beam search."""

import pytest
import torch
from transformers import BartForConditionalGeneration
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from routing_moe.model.beams import SHARING, attend
from routing_moe.model.modeling import generate_plain

BEAMS = 4


@pytest.fixture
def inputs(batch):
    return dict(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])


@pytest.fixture
def cross_rows(monkeypatch):
    """Records the numbers of rows of queries and keys of every attention by `attend`."""
    seen = set()

    def recording(module, query, key, *others, **named):
        seen.add((len(query), len(key)))
        return attend(module, query, key, *others, **named)

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, SHARING, recording)
    return seen


def test_a_plain_bart_gives_the_same_sequences(make_model, inputs, cross_rows):
    model = make_model(bart_fields=dict(init_std=0.8))
    bart = model.to_bart(torch.eye(3)[[0, 1, 2, 0]])
    for limits in (dict(max_length=12), dict(max_length=9, no_repeat_ngram_size=2, num_return_sequences=2)):
        expected = bart.generate(**inputs, num_beams=BEAMS, **limits)
        assert not cross_rows
        assert torch.equal(generate_plain(bart, **inputs, num_beams=BEAMS, **limits), expected)
        assert (4 * BEAMS, 4) in cross_rows
        cross_rows.clear()
    assert bart.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("vanilla", [[], [0]])
def test_soft_routes_give_the_same_sequences(make_model, inputs, cross_rows, vanilla):
    model = make_model(bart_fields=dict(init_std=0.8), decoder_vanilla_layers=vanilla)
    along = dict(routes=torch.randn(4, 4, 3, dtype=torch.float64).softmax(-1), num_beams=BEAMS, max_length=12)
    expected = BartForConditionalGeneration.generate(model, **inputs, **along)
    assert not cross_rows
    assert torch.equal(model.generate(**inputs, **along), expected)
    assert (4 * BEAMS, 4) in cross_rows


@pytest.mark.parametrize(
    "options", [dict(num_beams=1), dict(use_cache=False), dict(return_dict_in_generate=True)]
)
def test_other_generations_are_those_of_the_library(make_model, inputs, cross_rows, options):
    bart = make_model(num_experts=1).to_bart(torch.ones(4, 1))
    options = dict(num_beams=BEAMS, max_length=8) | options
    generate_plain(bart, **inputs, **options)
    assert not cross_rows


def test_attention_is_restored_after_an_error(make_model, inputs):
    bart = make_model(num_experts=1).to_bart(torch.ones(4, 1))
    with pytest.raises(ValueError, match="max_length"):
        generate_plain(bart, **inputs, num_beams=BEAMS, max_length=-1)
    assert bart.config._attn_implementation == "sdpa"
