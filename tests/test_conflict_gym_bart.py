"""The BART of a conflict gym: all texts of the gym in whole-word tokens, training by the real command."""

import csv
import json
from pathlib import Path

import pytest
from tiny_runs import run, typed
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from dataloader.encoding import TextFormat
from dataloader.gym import Gym
from task.conflict_gym.bart import main
from task.conflict_gym.generate import generate
from task.conflict_gym.settings import GymSettings

SIZES = dict(tasks=4, unseen_tasks=2, encoder_parts=2, decoder_parts=2, rows=8, dev_rows=4, test_rows=6)


def made(folder: Path, *flags: str, **settings) -> tuple[Path, Path]:
    """Folders of a small gym and of its BART."""
    generate(GymSettings(output_dir=folder / "gym", **(SIZES | settings)))
    assert main(["--gym", str(folder / "gym"), "--output_dir", str(folder / "bart"), *flags]) == 0
    return folder / "gym", folder / "bart"


@pytest.fixture(scope="module")
def opaque(tmp_path_factory):
    return made(tmp_path_factory.mktemp("opaque"))


@pytest.mark.parametrize(
    ("names", "example"),
    [("opaque", "[ t001 ] {}"), ("telling", "[ e{} - d{} - t001 ] {}")],
)
def test_texts_are_whole_words_and_answers_decode_to_themselves(tmp_path, names, example):
    folder, bart = made(tmp_path, names=names)
    gym, tokenizer = Gym(folder), AutoTokenizer.from_pretrained(bart)
    parts = list(json.loads((folder / "oracle_routes.json").read_text()).values())[1].values()
    for task in gym.tasks():
        for row in gym.examples(task, "train"):
            for texts in (TextFormat(), TextFormat(hide_task_names=True)):
                ids = tokenizer(texts.source(row), split_special_tokens=True)["input_ids"]
                assert tokenizer.unk_token_id not in ids
                assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
            assert tokenizer.convert_ids_to_tokens(ids[1:4]) == ["[", "task", "]"]
            label = tokenizer(texts.target(row.outputs[0]))["input_ids"]
            assert len(label) == 3
            assert tokenizer.decode(label, skip_special_tokens=True) == row.outputs[0]
            if task.endswith("t001"):
                ids = tokenizer(TextFormat().source(row))["input_ids"]
                text = example.format(*(parts if names == "telling" else ()), row.input)
                assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_the_tokens_are_the_words_the_names_and_brackets_with_the_special_ids_of_bart(opaque):
    tokenizer = AutoTokenizer.from_pretrained(opaque[1])
    assert tokenizer.convert_ids_to_tokens(range(5)) == ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    assert len(tokenizer) == 5 + len("[]-") + len(["task"]) + 6 + 40
    assert tokenizer("zzz")["input_ids"] == [0, 3, 2]


def test_gyms_of_other_seeds_have_the_same_tokens(opaque, tmp_path):
    _, bart = made(tmp_path, seed=7)
    assert (bart / "tokenizer.json").read_bytes() == (opaque[1] / "tokenizer.json").read_bytes()


@pytest.mark.parametrize(("width", "layers", "heads", "init_std"), [(16, 2, 4, None), (6, 1, 2, 0.02)])
def test_the_model_has_the_given_sizes_and_random_weights(opaque, tmp_path, width, layers, heads, init_std):
    flags = dict(gym=opaque[0], width=width, layers=layers, init_std=init_std)
    assert main(typed(flags | dict(output_dir=tmp_path / "bart"))) == 0
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "bart")
    config = model.config
    assert (config.d_model, config.encoder_layers, config.decoder_layers) == (width, layers, layers)
    assert (config.encoder_attention_heads, config.decoder_attention_heads) == (heads, heads)
    assert (config.encoder_ffn_dim, config.decoder_ffn_dim, config.max_position_embeddings) == (
        *(2 * width, 2 * width), 64,
    )  # fmt: skip
    assert (config.pad_token_id, config.decoder_start_token_id, config.forced_eos_token_id) == (1, 2, 2)
    assert (config.dropout, config.attention_dropout, config.init_std) == (0, 0, init_std or 0.1)
    assert config.vocab_size == len(AutoTokenizer.from_pretrained(tmp_path / "bart"))
    assert model.model.shared.weight.std().item() == pytest.approx(init_std or 0.1, rel=0.2)


@pytest.mark.usefixtures("empty_pictures")
def test_the_training_command_trains_a_mixture_on_it_and_scores_every_train_task(opaque, tmp_path):
    gym, bart = opaque
    assert run(gym, bart, tmp_path / "run", do_predict=True, total_steps=24, eval_period=12, num_beams=1) == 0
    with open(tmp_path / "run/best/eval-test-performance.csv", newline="") as file:
        scored = {row["task_prefix"]: (row["metric"], int(row["n"])) for row in csv.DictReader(file)}
    assert scored == {f"t00{number}": ("EM", 6) for number in range(4)}
    with open(tmp_path / "run/losses.csv", newline="") as file:
        losses = [float(row["train_loss"]) for row in csv.DictReader(file)]
    assert len(losses) == 2
    assert losses[-1] < 0.8 * losses[0]
