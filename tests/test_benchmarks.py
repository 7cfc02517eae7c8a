"""The benchmarks run and print one JSON line. No test depends on measured times."""

import json
import math

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks import llm_step, train_step

TINY = ["--model_size", "tiny", "--threads", "1"]
TRAIN = [*TINY, "--source_length", "24", "--target_length", "5"]


def numbers_in(values) -> list[float]:
    if isinstance(values, dict | list):
        parts = values.values() if isinstance(values, dict) else values
        return [n for part in parts for n in numbers_in(part)]
    return [values]


# ---- whole scripts

TIMES = {"median_s", "min_s", "forward_s", "forward_backward_s", "optimizer_s", "optimizer_share"}
VARIANTS = ["plain", "one_expert", "average", "softmax", "one_hot", "straight_through"]
VARIANTS += ["straight_through_slow", "merged_softmax_one_task", "lora_softmax"]
RATIOS = {
    "straight_through_slow_over_straight_through_step",
    "one_hot_over_plain_forward_backward",
    "average_over_plain_step",
    "one_expert_over_plain_step",
    "merged_softmax_one_task_over_softmax_forward_backward",
}


def test_a_benchmark_reports_times_of_its_variants_and_their_ratios(capsys):
    assert train_step.main([*TRAIN, "--steps", "1", "--variants", *VARIANTS]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    report = json.loads(line)
    assert {"settings", "versions", "git", "device", "threads", "load_average_before"} <= set(report)
    assert all(math.isfinite(n) and n > 0 for n in numbers_in([report["variants"], report["ratios"]]))
    assert report["benchmark"] == "train_step"
    assert list(report["variants"]) == list(report["settings"]["variants"])
    assert all(set(values) == TIMES for values in report["variants"].values())
    assert set(report["ratios"]) >= RATIOS


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    small = dict(vocab_size=96, hidden_size=32, intermediate_size=64, num_hidden_layers=2)
    small |= dict(num_attention_heads=4, num_key_value_heads=2)
    LlamaForCausalLM(LlamaConfig(**small)).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("variant", ["one_expert", "one_hot", "experts", "peft", "peft_projected"])
def test_a_step_of_a_named_decoder_only_model_is_measured(variant, llama):
    pytest.importorskip("peft", reason="peft is an extra: pip install .[peft]")
    shape = dict(model=llama, dtype="float32", batch_size=2, length=8, answer_length=2, steps=1)
    assert llm_step.measured(variant, llm_step.LlmStepSettings(**shape))["median_s"] > 0
