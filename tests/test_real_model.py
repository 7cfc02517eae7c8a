"""A real pre-trained model, which example_scripts/get_smollm2.sh brings: answers, experts, exports.

SmolLM2-135M-Instruct, 4-bit weights, dequantized. SMOLLM2: its folder, if that is not models/smollm2.
"""

import json
import os
from pathlib import Path

import pytest
import served
import torch
from tiny_runs import typed

from dataloader import Example
from dataloader.encoding import encode
from routing_moe import Routed
from routing_moe.cli.train import main as train
from routing_moe.evaluation.route_losses import losses_along

MODEL = Path(os.environ.get("SMOLLM2") or Path(__file__).parents[1] / "models/smollm2")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (MODEL / "config.json").is_file(), reason=f"{MODEL} is missing; example_scripts/get_smollm2.sh"
    ),
]
TRAINED = ["apple", "river", "stone", "candle", "mirror", "garden", "window", "bottle"]
NEW = ["ladder", "pocket", "silver", "winter"]
ANSWERS = {"capitals": str.upper, "length": lambda word: str(len(word))}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with an expert for each of two tasks whose inputs are the same."""
    folder = tmp_path_factory.mktemp("real")
    for task, answer in ANSWERS.items():
        (folder / "gym" / task).mkdir(parents=True)
        for part, words in (("train", TRAINED), ("dev", NEW), ("test", NEW)):
            rows = "".join(f"{word}\t{answer(word)}\n" for word in words)
            (folder / "gym" / task / f"{task}_8_13_{part}.tsv").write_text(rows)
    split = {"train": sorted(ANSWERS), "dev": [], "test": []}
    (folder / "gym/split.json").write_text(json.dumps(split))
    (folder / "gym/metrics.json").write_text(json.dumps(dict.fromkeys(ANSWERS, "EM")))
    flags = dict(train_dir=folder / "gym", model=MODEL, expert_kind="lora", lora_rank=4, prompt_format="chat")
    flags |= dict(task_routes="tasks", do_train=True, total_steps=10, train_batch_size=8, learning_rate=2e-3)
    flags |= dict(num_beams=1, max_input_length=48, max_output_length=8, eval_period=10, no_text_vectors=None)
    flags |= dict(select_by="answer_loss", seed=1, output_dir=folder / "run")
    assert train(typed(flags)) == 0
    return folder / "run"


@pytest.fixture
def routed(run):
    return Routed.load(run)


def test_a_trained_expert_has_a_lower_loss_on_new_words_than_the_base_and_the_other_expert(routed):
    names = sorted(ANSWERS)
    routes_KLE = torch.stack([routed.task(name).route_LE for name in names])
    with_base = torch.cat([routes_KLE, torch.zeros_like(routes_KLE[:1])])  # no expert: the base
    for own, name in enumerate(names):
        examples = [Example(name, name, word, (ANSWERS[name](word),)) for word in NEW]
        encoded = encode(examples, routed.tokenizer, routed.text_format, {name: 0})
        losses_K = losses_along(routed.model, encoded, with_base, routed.accelerator).mean(axis=0)
        assert losses_K[own] < 0.8 * min(losses_K[1 - own], losses_K[2]), (name, losses_K)


MOST = {"peft float64": 1e-8, "peft float32": 1e-4, "llama.cpp float32": 0.02}  # of log-probabilities


def test_peft_and_llama_cpp_answer_along_routes_as_the_mixture(run, tmp_path):
    pytest.importorskip("peft")
    packaged = next(MODEL.glob("*.gguf"), None)
    for engine, adapters, route, equal, largest, n in served.comparisons(run, packaged, tmp_path, n=4):
        if engine in MOST:
            assert equal == n, (engine, adapters, route)
            assert largest < MOST[engine], (engine, adapters, route)
    if packaged is None:
        pytest.skip(f"{MODEL} has no GGUF file for llama.cpp: example_scripts/get_smollm2.sh brings it")
