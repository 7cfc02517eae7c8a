"""Encoding: the published tokenizer's ids, ragged storage, and padded batches."""

import json

import numpy as np
import pytest
import torch
from tiny_backbones import WITH_ENCODER, plain_models
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoTokenizer, BartTokenizer

from dataloader import Example, Gym, InputError, TextFormat, encode

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
BOS, PAD, EOS = 0, 1, 2
IDS = {"t": 3, "u": 5}

plain = pytest.fixture(scope="module")(plain_models)


@pytest.fixture(scope="module")
def tokenizer():
    """A byte-level BART tokenizer without merges: one token per byte."""
    vocabulary = SPECIAL + sorted(ByteLevel.alphabet())
    return BartTokenizer(vocab={token: number for number, token in enumerate(vocabulary)}, merges=[])


@pytest.fixture(scope="module")
def published_tokenizer(published_numbers):
    return BartTokenizer.from_pretrained(published_numbers / "tokenizer")


def example(text, *outputs, task="t"):
    return Example(task, f"{task}_32_13", text, outputs)


def text_of(tokenizer, ids):
    return tokenizer.decode(ids, clean_up_tokenization_spaces=False)


def test_texts_are_task_name_input_and_answers_with_leading_spaces_lowercased_if_asked(tokenizer):
    encoded = encode([example("Ab c", "Yes", "No", task="u")], tokenizer, TextFormat(), IDS)
    assert text_of(tokenizer, encoded.sources[0]) == "<s> [u] Ab c</s>"
    assert [text_of(tokenizer, encoded.outputs[i]) for i in (0, 1)] == ["<s> Yes</s>", "<s> No</s>"]
    assert encoded.task_ids_N.tolist() == [5]
    form = TextFormat(do_lowercase=True)
    lowercased = encode([example("Ab c", "Yes", "No", task="u")], tokenizer, form, IDS)
    assert text_of(tokenizer, lowercased.sources[0]) == "<s> [u] ab c</s>"
    assert text_of(tokenizer, lowercased.outputs[0]) == "<s> yes</s>"


def test_hidden_task_names_are_replaced_by_a_constant_word(tokenizer):
    texts = [example("Ab c", "Yes", task=task) for task in ("t", "u")]
    encoded = encode(texts, tokenizer, TextFormat(hide_task_names=True), IDS)
    assert [text_of(tokenizer, encoded.sources[i]) for i in (0, 1)] == ["<s> [task] Ab c</s>"] * 2
    assert encoded.task_ids_N.tolist() == [3, 5]


def test_another_bos_puts_a_bos_token_before_the_text(tokenizer):
    for length in (512, 9):
        form = TextFormat(max_input_length=length, append_another_bos=True)
        encoded = encode([example("ab", "yes")], tokenizer, form, IDS)
        expected = tokenizer("<s>  [t] ab", truncation=True, max_length=length)["input_ids"]
        assert encoded.sources[0].tolist() == expected
        assert encoded.outputs[0].tolist() == tokenizer("<s>  yes")["input_ids"]


def test_truncation_counts_the_special_tokens_and_keeps_both_ends(tokenizer):
    form = TextFormat(max_input_length=10, max_output_length=4)
    encoded = encode([example("a long text", "yes")], tokenizer, form, IDS)
    assert encoded.source_lengths_N.tolist() == [10]
    assert encoded.target_lengths_N.tolist() == [4]
    assert encoded.sources[0][[0, -1]].tolist() == [BOS, EOS]


def test_text_that_looks_like_a_special_token_stays_text(tokenizer):
    encoded = encode([example("a</s>b<pad>", "<s>")], tokenizer, TextFormat(), IDS)
    assert not set(encoded.sources[0][1:-1]) & set(range(len(SPECIAL)))
    assert not set(encoded.outputs[0][1:-1]) & set(range(len(SPECIAL)))


def test_many_texts_are_encoded_as_one_at_a_time(tokenizer, monkeypatch):
    monkeypatch.setattr("dataloader.encoding.TEXTS_PER_CALL", 3)
    examples = [example("x" * n, *["y" * (n + k) for k in range(1 + n % 3)]) for n in range(1, 9)]
    together = encode(examples, tokenizer, TextFormat(), IDS)
    for index, alone in enumerate(encode([one], tokenizer, TextFormat(), IDS) for one in examples):
        assert together.sources[index].tolist() == alone.sources[0].tolist()
        first = together.first_output[index]
        for i in range(len(alone.outputs)):
            assert together.outputs[first + i].tolist() == alone.outputs[i].tolist()


def test_collate_pads_to_the_batch_and_takes_the_chosen_answer(tokenizer):
    examples = [example("ab", "c"), example("d", "e", "fgh"), example("x" * 30, "y")]
    encoded = encode(examples, tokenizer, TextFormat(), IDS)
    batch = encoded.collate([1, 0], answer_choice=[1, 0], pad_token_id=PAD)
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, encoded.source_lengths_N[0])
    assert batch["input_ids"][0].tolist() == [*encoded.sources[1].tolist(), PAD]
    assert batch["attention_mask"].sum(1).tolist() == encoded.source_lengths_N[[1, 0]].tolist()
    assert text_of(tokenizer, batch["labels"][0]) == "<s> fgh</s>"
    assert batch["labels"][1].tolist() == [*encoded.outputs[0].tolist(), -100, -100]
    assert batch["task_ids"].tolist() == [3, 3]
    assert text_of(tokenizer, encoded.collate([1], pad_token_id=PAD)["labels"][0]) == "<s> e</s>"


def test_a_task_without_an_id_is_named(tokenizer):
    with pytest.raises(InputError, match="did you mean 'boolq'"):
        encode([example("a", "b", task="boolQ")], tokenizer, TextFormat(), {"boolq": 0})


def test_ids_equal_those_of_the_published_tokenizer(published_numbers, published_tokenizer):
    golden = json.loads((published_numbers / "tokenizer/tokenizer.json.golden").read_text())["encode"]
    for case in golden:
        ids = published_tokenizer(case["text"], split_special_tokens=True)["input_ids"]
        assert ids == case["ids"], case["text"]


def test_a_gym_is_encoded_as_the_published_code_caches_it(published_numbers, published_tokenizer):
    folder = published_numbers / "data"
    facts = json.loads((folder / "README.json").read_text())
    cache = json.loads((folder / "heterogenous-golden-train-train-BartTokenized.json").read_text())
    task_ids, input_ids, attention_mask, target_ids, target_mask, _, outputs_of = cache
    examples = Gym(folder).pool(facts["task2id"], "train")
    form = TextFormat(facts["max_input_length"], facts["max_output_length"])
    encoded = encode(examples, published_tokenizer, form, facts["task2id"])
    assert encoded.task_ids_N.tolist() == task_ids
    for ours, ids, mask in (
        (encoded.sources, input_ids, attention_mask),
        (encoded.outputs, target_ids, target_mask),
    ):
        assert ours.lengths.tolist() == [sum(row) for row in mask]
        assert [row.tolist() for row in (ours[i] for i in range(len(ours)))] == [
            row[: sum(kept)] for row, kept in zip(ids, mask, strict=True)
        ]
    pairs = np.stack([encoded.first_output[:-1], encoded.first_output[1:]], axis=1)
    assert pairs.tolist() == outputs_of


@pytest.mark.parametrize("family", WITH_ENCODER)
def test_texts_have_the_tokens_that_the_tokenizer_puts_around_them(family, plain):
    tokenizer, limit = AutoTokenizer.from_pretrained(plain(family)), 9
    examples = [example("sky", "b"), example("a" * 30, "blue " * 9)]
    found = encode(examples, tokenizer, TextFormat(limit, limit), IDS)
    around = tokenizer("")["input_ids"]
    for rows, texts in (
        (found.sources, [f" [t] {each.input}" for each in examples]),
        (found.outputs, [f" {each.outputs[0]}" for each in examples]),
    ):
        for row, text in zip(map(list, (rows[0], rows[1])), texts, strict=True):
            whole = tokenizer(text)["input_ids"]
            assert row[-len(around) :] == around
            assert row[: -len(around)] == whole[: len(whole) - len(around)][: limit - len(around)]
