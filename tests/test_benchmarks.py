"""The benchmarks run and print one JSON line. No test depends on measured times."""

import json
import math

import pytest
import torch
from accelerate.state import AcceleratorState
from tiny_answers import TEXTS

from benchmarks import answer, measuring, predict, train_step
from routing_moe.config.flags import parse

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
    AcceleratorState._reset_state(reset_partial_state=True)
    (tmp_path / "new.txt").write_text("\n".join(TEXTS))
    flags = ["--checkpoint", finished, "--task", "colour", "--inputs", tmp_path / "new.txt"]
    assert answer.main([*map(str, flags), "--lines", "8", "--rounds", "1"]) == 0
    report = parse_report(capsys.readouterr().out)
    assert list(report["variants"]) == ["routed", "transformers"]
    assert report["equal_answers"] == 8


# ---- variants


@pytest.fixture
def tiny_settings():
    flags = [*TRAIN, "--num_experts", "4", "--tasks_per_batch", "2"]
    return train_step.TrainStepSettings(**parse(train_step.TrainStepSettings, flags))


@pytest.mark.parametrize(
    ("route", "experts_per_row", "is_trained"),
    [
        ("average", 4, False),
        ("softmax", 4, True),
        ("gumbel_softmax", 4, True),
        ("straight_through", 1, True),
        ("straight_through_frozen", 1, False),
        ("top_k", 2, True),
        ("random", 1, False),
        ("task_random", 1, False),
        ("merged_softmax", 4, True),
    ],
)
def test_a_variant_uses_the_routes_of_its_name(tiny_settings, route, experts_per_row, is_trained):
    model = train_step.build_routed(tiny_settings)
    train_step.take_routes(model, "merged_softmax")  # a previous variant must have no effect
    train_step.take_routes(model, route)
    routes_BLE = model.draw_routes(tiny_settings.task_ids(route, 0))
    assert ((routes_BLE > 0).sum(-1) == experts_per_row).all()
    assert routes_BLE.requires_grad == is_trained
    assert (model.config.expert_mixing == "parameters") == route.startswith("merged")


@pytest.mark.parametrize("route", ["softmax", "straight_through", "top_k", "merged_softmax"])
def test_a_step_computes_the_gradients_of_the_whole_graph_for_router_and_experts(tiny_settings, route):
    model = train_step.build_routed(tiny_settings).double().eval()  # no dropout, no noise
    train_step.take_routes(model, route)
    inputs = measuring.random_source(4, 12, 200, "cpu") | {"labels": torch.randint(4, 200, (4, 5))}
    inputs["loss_only"] = True
    task_ids_B = tiny_settings.task_ids(route, 0)
    if route == "straight_through":
        model.train().apply(lambda module: setattr(module, "dropout", 0.0))
        model.apply(lambda module: setattr(module, "activation_dropout", 0.0))
    gradients = []
    for way in ("leaf", "graph"):
        torch.manual_seed(0)
        if way == "leaf":
            loss, router_backward = train_step.routed_forward(model, inputs, task_ids_B)
            loss.backward()
            router_backward()
        else:
            model(**inputs, task_ids=task_ids_B).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
        model.zero_grad(set_to_none=True)
    assert any(name.startswith("router.") and g.abs().max() > 0 for name, g in gradients[0].items())
    torch.testing.assert_close(*gradients)
