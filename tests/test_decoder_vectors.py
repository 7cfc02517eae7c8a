"""Task vectors by decoder-only models, against one example at a time."""

import numpy as np
import pytest
import torch
from tiny_backbones import plain_models
from tiny_runs import ROWS
from tiny_vectors import run as compute_vectors
from tiny_vectors import vectors
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

plain = pytest.fixture(scope="module")(plain_models)


def test_gradient_vectors_are_those_of_a_backward_pass(world, plain, tmp_path):
    flags = dict(max_input_length=40, max_output_length=12, projection_dim=0, weights="layers")
    assert compute_vectors("gradient", world.gym, plain("llama"), tmp_path / "v", **flags) == 0
    model = AutoModelForCausalLM.from_pretrained(plain("llama"))
    tokenizer, end = AutoTokenizer.from_pretrained(plain("llama")), [1]
    rows = [line.split("\t") for line in ROWS["count"] * 2]
    for text, answer in rows:
        source = tokenizer(f" {text}")["input_ids"]
        answer = tokenizer(f" {answer}", add_special_tokens=False)["input_ids"] + end
        logits = model(torch.tensor([[*source, *answer]])).logits[0, len(source) - 1 : -1]
        (-F.cross_entropy(logits, torch.tensor(answer), reduction="sum") / len(rows)).backward()
    expected = [p.grad.flatten() for name, p in model.named_parameters() if ".layers." in name]
    np.testing.assert_allclose(vectors(tmp_path / "v")["count"], torch.cat(expected), rtol=1e-3, atol=1e-5)


def test_text_vectors_are_means_of_last_states(world, plain, tmp_path, capsys, monkeypatch):
    flags = dict(max_input_length=40)
    with monkeypatch.context() as without_cache:
        without_cache.setattr(DynamicCache, "update", None)
        assert compute_vectors("text", world.gym, plain("llama"), tmp_path / "v", **flags) == 0
    model = AutoModelForCausalLM.from_pretrained(plain("llama")).model
    tokenizer = AutoTokenizer.from_pretrained(plain("llama"))
    texts = [f" {line.split(chr(9))[0]}" for line in ROWS["count"]]
    with torch.no_grad():
        states = [model(**tokenizer(text, return_tensors="pt"))[0][0, 1:].mean(dim=0) for text in texts]
    np.testing.assert_allclose(vectors(tmp_path / "v")["count"], torch.stack(states).mean(dim=0), rtol=1e-4)
    assert compute_vectors("text", world.gym, plain("llama"), tmp_path / "w", **flags, pooling="bos") != 0
    assert "--pooling bos: a decoder-only model" in capsys.readouterr().err
