"""Text vectors do not depend on padding, special tokens, task names, or dev and test files."""

import numpy as np
import pytest
import torch
from tiny_runs import ROWS, write_bart, write_gym
from transformers import AutoTokenizer

from dataloader.encoding import TextFormat
from dataloader.errors import InputError
from dataloader.gym import Gym
from routing_moe import RoutingBartForConditionalGeneration
from routing_moe.evaluation.text_vectors import encoder_states, text_vectors
from routing_moe.model.loading import load_backbone
from routing_moe.task_choice.texts import TextSource, train_examples
from task.skill_gym import TINY_BART

INPUTS = {
    "short": ["grass", "two and one", "hot"],
    "long": ["the grass is green and the sky is blue in the morning", "cat", "one and one and two"],
}
FORMAT = TextFormat(max_input_length=24, max_output_length=6)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(TINY_BART)


@pytest.fixture(scope="module")
def bart(tmp_path_factory):
    return load_backbone(write_bart(tmp_path_factory.mktemp("bart"))).eval()


def mixture_of(bart, init_eps=0.1, **fields):
    return RoutingBartForConditionalGeneration.from_bart(
        bart, 3, init_eps, task_names=["short"], router_input_dim=8, router_hidden_dim=4, **fields
    )


def ids_and_positions(input_ids_BS, attention_mask_BS):
    """A fake encoder: the states (B, S, 2) of a token are its id and its position."""
    positions_BS = torch.arange(input_ids_BS.shape[1]).expand_as(input_ids_BS)
    return torch.stack([input_ids_BS, positions_BS], dim=-1).float()


@pytest.mark.parametrize("kind", ["plain", "merged"])
def test_padding_does_not_change_a_vector(kind, bart, tokenizer):
    merged = dict(router_mode="softmax", expert_mixing="parameters")
    states_of = encoder_states(bart if kind == "plain" else mixture_of(bart, **merged))
    together = text_vectors(states_of, tokenizer, INPUTS, FORMAT, batch_tokens=0)  # no limit
    alone = text_vectors(states_of, tokenizer, INPUTS, FORMAT, batch_tokens=1)
    assert together.shape == (2, 16)
    np.testing.assert_allclose(together, alone, atol=2e-6)

    def padded_more(input_ids_BS, attention_mask_BS):
        more = torch.nn.functional.pad
        return states_of(more(input_ids_BS, (0, 3), value=1), more(attention_mask_BS, (0, 3)))[:, :-3]

    np.testing.assert_allclose(text_vectors(padded_more, tokenizer, INPUTS, FORMAT), together, atol=2e-6)


def test_vectors_of_equal_experts_are_those_of_their_plain_bart_without_dropout(bart, tokenizer):
    plain = text_vectors(encoder_states(bart), tokenizer, INPUTS, FORMAT)
    model = mixture_of(bart, init_eps=0.0).train()
    equal = text_vectors(encoder_states(model), tokenizer, INPUTS, FORMAT)
    np.testing.assert_allclose(equal, plain, atol=2e-6)
    assert model.training
    assert model.model.encoder.training


def test_texts_are_truncated_and_lowercased_as_in_training(tokenizer):
    inputs = {"one": ["GRASS and one two three four five"]}
    fields = dict(max_input_length=5, max_output_length=6, do_lowercase=True)
    found = text_vectors(ids_and_positions, tokenizer, inputs, TextFormat(**fields))
    ids = tokenizer(f" {inputs['one'][0].lower()}", add_special_tokens=False)["input_ids"][:3]
    assert found[0] == pytest.approx([np.mean(ids), 2.0])
    found = text_vectors(ids_and_positions, tokenizer, inputs, TextFormat(**fields, append_another_bos=True))
    ids = tokenizer(f"  {inputs['one'][0].lower()}", add_special_tokens=False)["input_ids"][:2]
    assert found[0] == pytest.approx([np.mean(ids), 2.5])  # positions 2 and 3: both <s> are left out


def test_a_task_without_inputs_is_an_error(tokenizer):
    with pytest.raises(InputError, match="task 'none' has no inputs"):
        text_vectors(ids_and_positions, tokenizer, INPUTS | {"none": []}, FORMAT)


def test_only_the_first_train_file_of_a_task_is_opened(tmp_path):
    folder = write_gym(tmp_path / "gym")
    first = [row.split("\t")[0] for row in ROWS["colour"]]
    (folder / "colour/colour_12_13_train.tsv").unlink()  # of the second sample
    for path in [*folder.glob("*/*_dev.tsv"), *folder.glob("*/*_test.tsv")]:
        path.unlink()
        path.mkdir()  # reading a folder is an error
    gym = Gym(folder)
    for limits, expected in (({}, first * 2), (dict(limit=2), first[:2]), (dict(most=1), first[:1])):
        assert [row.input for row in train_examples(gym, "colour", "first", **limits)] == expected
    spread = [example.input for example in train_examples(gym, "colour", "first", most=3)]
    assert spread == [(first * 2)[row] for row in (0, 6, 11)]


def test_a_gym_without_train_files_of_the_task_is_skipped(tmp_path):
    with_all, lacking = Gym(write_gym(tmp_path / "all")), Gym(write_gym(tmp_path / "lacking"))
    for path in lacking.folder.glob("plural/*_train.tsv"):
        path.unlink()
    assert TextSource((lacking, with_all), FORMAT).gym_of("plural") is with_all
    assert TextSource((lacking, with_all), FORMAT).gym_of("count") is lacking
    with pytest.raises(InputError, match="lacking: no train file of plural"):
        TextSource((lacking,), FORMAT).gym_of("plural")
