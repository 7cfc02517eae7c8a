"""The benchmarks run and print one JSON line. How fast anything is, is not a test's business."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import predict, train_step

REPOSITORY = Path(__file__).resolve().parents[1]
TINY = ["--model_size", "tiny", "--threads", "1"]
TRAIN = [*TINY, "--source_length", "24", "--target_length", "5", "--second_shape", "6x12x5"]
PREDICT = [*TINY, "--source_length", "24", "--new_tokens", "4", "--num_beams", "2"]


def parse_report(stdout: str) -> dict:
    (line,) = stdout.splitlines()
    report = json.loads(line)
    assert {"settings", "versions", "git", "device", "threads", "load_average_before"} <= set(report)
    numbers = [n for values in report["variants"].values() for n in values.values()]
    assert all(math.isfinite(n) and n > 0 for n in [*numbers, *report["ratios"].values()])
    return report


def test_train_step_times_every_variant_and_relates_them(capsys):
    train_step.main([*TRAIN, "--steps", "2", "--no_memory"])
    report = parse_report(capsys.readouterr().out)
    assert report["benchmark"] == "train_step"
    assert list(report["variants"]) == train_step.VARIANTS
    for values in report["variants"].values():
        assert set(values) == {"median_s", "min_s", "forward_backward_s"}
        assert values["min_s"] <= values["median_s"]
    assert {
        "straight_through_slow_over_fast_step",
        "one_hot_over_plain_forward_backward",
        "one_hot_second_over_plain_second_forward_backward",
        "average_over_plain_step",
        "softmax_over_plain_step",
    } <= set(report["ratios"])


def test_predict_times_every_variant_and_relates_them(capsys):
    predict.main([*PREDICT, "--steps", "1", "--no_memory"])
    report = parse_report(capsys.readouterr().out)
    assert report["benchmark"] == "predict"
    assert list(report["variants"]) == predict.VARIANTS
    assert all(set(values) == {"median_s", "min_s"} for values in report["variants"].values())
    assert set(report["ratios"]) == {
        "one_hot_over_plain",
        "one_hot_mixed_over_plain",
        "soft_over_plain",
        "soft_no_cache_over_soft",
    }


@pytest.mark.parametrize(
    ("script", "flags"),
    [("train_step", [*TRAIN, "--variants", "plain"]), ("predict", [*PREDICT, "--variants", "one_hot"])],
)
def test_as_scripts_they_measure_memory_in_a_process_of_its_own(script, flags):
    command = [sys.executable, f"benchmarks/{script}.py", "--steps", "1", *flags]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    (values,) = parse_report(ended.stdout)["variants"].values()
    assert values["peak_memory_gb"] > 0.05


def test_an_unknown_variant_is_refused_with_the_known_ones(capsys):
    with pytest.raises(SystemExit):
        train_step.main(["--variants", "one_hott"])
    assert "--variants one_hott: it must be among average average_slow" in capsys.readouterr().err
