"""Decoding: beams that share the encoder's states of their input, and the maximum length of answers."""

import pytest
import torch
import transformers as hf
from accelerate import Accelerator
from tiny_backbones import BART, FAMILIES, MIXINGS, SPECIAL, T5, WITH_ENCODER, batch_of, make_differ
from tiny_runs import TINY_BART
from tiny_steps import Words, encoded
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from dataloader import Example
from routing_moe import RoutedModel, RoutingBartForConditionalGeneration
from routing_moe.checkpoints.folder import save_checkpoint
from routing_moe.evaluation.scored_files import Decoding, TaskFile
from routing_moe.evaluation.scoring import answer
from routing_moe.model.beams import SHARING, attend, decoder_configs, generate_plain

BEAMS, LONGEST = 4, 6


# ---- beams that share the encoder's states


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


@pytest.mark.parametrize("vanilla", [[], [0]])
def test_soft_routes_give_the_same_sequences(make_model, inputs, cross_rows, vanilla):
    model = make_model(bart_fields=dict(init_std=0.8), decoder_vanilla_layers=vanilla)
    along = dict(routes=torch.randn(4, 4, 3, dtype=torch.float64).softmax(-1), num_beams=BEAMS, max_length=12)
    expected = hf.BartForConditionalGeneration.generate(model, **inputs, **along)
    assert not cross_rows
    assert torch.equal(model.generate(**inputs, **along), expected)
    assert (4 * BEAMS, 4) in cross_rows


LIKE_BART = dict(
    m2m_100=hf.M2M100Config, marian=hf.MarianConfig, blenderbot=hf.BlenderbotConfig, plbart=hf.PLBartConfig
)
SIZES = dict(vocab_size=96, max_position_embeddings=64, decoder_start_token_id=0, **SPECIAL, **BART)
FURTHER = {kind: lambda config=config: config(**SIZES) for kind, config in LIKE_BART.items()}
FURTHER["umt5"] = lambda: hf.UMT5Config(vocab_size=96, **T5)
BACKBONES = {**FAMILIES, **WITH_ENCODER, **FURTHER}


def plain_of(family: str, init_std: float = 0.5):
    model = hf.AutoModelForSeq2SeqLM.from_config(BACKBONES[family]()).double().eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=init_std)
    return model


@pytest.mark.parametrize("is_padded", [True, False])
@pytest.mark.parametrize("family", ["t5", "mt5", "byt5", "mbart", "pegasus", "bart", *FURTHER])
def test_other_plain_models_give_the_same_sequences(family, is_padded, cross_rows):
    model = plain_of(family)
    inputs = {name: tensor for name, tensor in batch_of(model).items() if name != "labels"}
    if not is_padded:
        inputs = {"input_ids": inputs["input_ids"].clamp(min=3), "attention_mask": torch.ones(4, 9).long()}
    further = dict(no_repeat_ngram_size=2, num_return_sequences=2)
    for limits in (dict(max_length=12, min_length=5), dict(max_length=9, **further)):
        expected = model.generate(**inputs, num_beams=BEAMS, **limits)
        assert not cross_rows
        assert torch.equal(generate_plain(model, **inputs, num_beams=BEAMS, **limits), expected)
        # The attention of a UMT5 repeats keys itself.
        assert ((4 * BEAMS, 4) in cross_rows) == (family != "umt5")
        cross_rows.clear()
    assert {config._attn_implementation for config in decoder_configs(model)} == {"sdpa"}


@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize("family", ["t5", "mbart", "pegasus", "bart", "umt5"])
def test_low_rank_experts_give_the_same_sequences(family, mixing, cross_rows, monkeypatch):
    fields = dict(lora_rank=3, lora_alpha=6, lora_targets="all", task_names=["a"], **MIXINGS[mixing])
    model = RoutedModel.from_backbone(plain_of(family), 4, **fields).double()
    make_differ(model)
    inputs = {name: tensor for name, tensor in batch_of(model).items() if name != "labels"}
    options = dict(inputs, num_beams=BEAMS, max_length=12, min_length=5)
    mixed = torch.randn(4, model.config.num_layers, 4, dtype=torch.float64).softmax(-1)
    for routes in (mixed, mixed[:1].expand(4, -1, -1)):
        found = model.generate(**options, routes=routes)
        assert ((4 * BEAMS, 4) in cross_rows) == (family != "umt5")
        cross_rows.clear()
        with monkeypatch.context() as patch:
            patch.setattr("routing_moe.model.beams.shares_sources", lambda model: False)
            assert torch.equal(model.generate(**options, routes=routes), found)
        assert not cross_rows


def test_tokens_that_answers_begin_with_may_be_several(cross_rows):
    """The positions of a T5's first step are those of each beam."""
    model = plain_of("t5")
    inputs = {name: tensor for name, tensor in batch_of(model).items() if name != "labels"}
    options = dict(inputs, num_beams=BEAMS, max_length=12, decoder_input_ids=torch.randint(3, 90, (4, 3)))
    expected = model.generate(**options)
    assert torch.equal(generate_plain(model, **options), expected)
    assert (4 * BEAMS, 4) in cross_rows


@pytest.mark.parametrize(
    "how", ["eager", "static", dict(num_beams=1), dict(use_cache=False), dict(return_dict_in_generate=True)]
)
def test_generations_that_cannot_share_are_those_of_the_library(how, cross_rows):
    model = plain_of("t5")
    options = {name: tensor for name, tensor in batch_of(model).items() if name != "labels"}
    options |= dict(num_beams=BEAMS, max_length=12) | (how if isinstance(how, dict) else {})
    expected = model.generate(**options)
    if how == "eager":
        model.set_attn_implementation("eager")
    elif how == "static":
        model.generation_config.cache_implementation = "static"
    found = generate_plain(model, **options)
    assert torch.equal(*(getattr(output, "sequences", output) for output in (found, expected)))
    assert not cross_rows


def test_attention_is_restored_after_an_error(make_model, inputs):
    bart = make_model(num_experts=1).to_bart(torch.ones(4, 1))
    with pytest.raises(ValueError, match="max_length"):
        generate_plain(bart, **inputs, num_beams=BEAMS, max_length=-1)
    assert bart.config._attn_implementation == "sdpa"


# ---- the length of answers


class WordsOfTarget(Words):
    """A tokenizer that decodes to all token ids."""

    def batch_decode(self, sequences, **kwargs):
        return [" ".join(map(str, row)) for row in sequences]


@pytest.mark.parametrize("from_bos", [False, True])
def test_an_answer_may_be_as_long_as_a_training_target_but_not_longer(make_model, from_bos):
    model = make_model(num_experts=1)
    model.final_logits_bias[0, 7] = 100.0  # always the same word, never the end token
    inputs = encoded([[0, 5, 2]], [[0, 7, 2]], [0])
    file = TaskFile("a", "a_1_13", "dev", "EM", [Example("a", "a_1_13", "x", ("y",))], inputs)
    decoding = Decoding(num_beams=1, max_output_length=LONGEST, generate_from_bos=from_bos)
    ((answers,),) = answer(model, WordsOfTarget(), [file], decoding, Accelerator(cpu=True))
    # Training targets begin with <s>, the first token with from_bos; </s> before it is not part of a target.
    assert len(answers.texts[0].split()) == LONGEST - from_bos


def test_generate_of_a_checkpoint_ends_beams_as_the_commands_do(make_model, tmp_path):
    model = make_model()
    model.generation_config.update(early_stopping=True, num_beams=4)  # as bart-base
    save_checkpoint(model, hf.AutoTokenizer.from_pretrained(TINY_BART), tmp_path / "best")
    saved = RoutingBartForConditionalGeneration.from_pretrained(tmp_path / "best")
    assert saved.generation_config.early_stopping is False
    assert model.generation_config.early_stopping is True  # the caller's model stays as it was
    route_LE = saved.routes_for(saved.config.task_names[:1], mode="gumbel_softmax_st")[0]
    assert saved.to_bart(route_LE).generation_config.early_stopping is False
