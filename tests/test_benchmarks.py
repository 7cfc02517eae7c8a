"""The benchmarks run and print one JSON line. No test depends on measured times."""

import json
import math

import pytest
from tiny_answers import TEXTS

from benchmarks import answer, predict, train_step

TINY = ["--model_size", "tiny", "--threads", "1"]
TRAIN = [*TINY, "--source_length", "24", "--target_length", "5"]
PREDICT = [*TINY, "--source_length", "24", "--new_tokens", "4", "--num_beams", "2"]


def parse_report(stdout: str) -> dict:
    (line,) = stdout.splitlines()
    report = json.loads(line)
    assert {"settings", "versions", "git", "device", "threads", "load_average_before"} <= set(report)
    assert all(math.isfinite(n) and n > 0 for n in numbers_in([report["variants"], report["ratios"]]))
    return report


def numbers_in(values) -> list[float]:
    if isinstance(values, dict | list):
        parts = values.values() if isinstance(values, dict) else values
        return [n for part in parts for n in numbers_in(part)]
    return [values]


# ---- whole scripts

TIMES = {"median_s", "min_s"}
STEP_TIMES = TIMES | {"forward_s", "forward_backward_s", "optimizer_s", "optimizer_share"}
VARIANTS = ["plain", "one_expert", "average", "softmax", "one_hot", "straight_through"]
VARIANTS += ["straight_through_slow", "merged_softmax_one_task", "lora_softmax"]
SCRIPTS = {
    "train_step": (
        train_step,
        [*TRAIN, "--steps", "1", "--variants", *VARIANTS],
        STEP_TIMES,
        {
            "straight_through_slow_over_straight_through_step",
            "one_hot_over_plain_forward_backward",
            "average_over_plain_step",
            "one_expert_over_plain_step",
            "merged_softmax_one_task_over_softmax_forward_backward",
        },
    ),
    "predict": (
        predict,
        [*PREDICT, "--steps", "1"],
        TIMES,
        {"one_hot_over_plain", "one_hot_mixed_over_plain", "soft_over_plain", "soft_no_cache_over_soft"},
    ),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_benchmark_reports_times_of_its_variants_and_their_ratios(name, capsys):
    script, flags, fields, ratios = SCRIPTS[name]
    assert script.main(flags) == 0
    report = parse_report(capsys.readouterr().out)
    assert report["benchmark"] == name
    assert list(report["variants"]) == list(report["settings"]["variants"])
    assert all(set(values) == fields for values in report["variants"].values())
    assert ratios <= set(report["ratios"])


def test_answers_are_those_of_transformers(finished, tmp_path, capsys):
    (tmp_path / "new.txt").write_text("\n".join(TEXTS))
    flags = ["--checkpoint", finished, "--task", "colour", "--inputs", tmp_path / "new.txt"]
    assert answer.main([*map(str, flags), "--lines", "8", "--rounds", "1"]) == 0
    report = parse_report(capsys.readouterr().out)
    assert list(report["variants"]) == ["routed", "transformers"]
    assert report["equal_answers"] == 8
