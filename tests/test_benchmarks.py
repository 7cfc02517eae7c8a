"""The benchmarks run and print one JSON line. No test depends on measured times."""

import json
import math
import os
from pathlib import Path

import psutil
import pytest
import torch

from benchmarks import (
    comparing,
    coverage,
    evaluation,
    explaining,
    finetune_grid,
    measuring,
    predict,
    start_up,
    task_vectors,
    train_step,
)
from routing_moe import RoutingBartForConditionalGeneration

REPOSITORY = Path(__file__).resolve().parents[1]
TINY = ["--model_size", "tiny", "--threads", "1"]
TRAIN = [*TINY, "--source_length", "24", "--target_length", "5", "--second_shape", "6x12x5"]
PREDICT = [*TINY, "--source_length", "24", "--new_tokens", "4", "--num_beams", "2"]


def parse_report(stdout: str) -> dict:
    (line,) = stdout.splitlines()
    report = json.loads(line)
    assert {"settings", "versions", "git", "device", "threads", "load_average_before"} <= set(report)
    assert all(math.isfinite(n) for n in numbers_in(report.get("across_experts", {})))
    assert all(math.isfinite(n) and n > 0 for n in numbers_in([report["variants"], report["ratios"]]))
    return report


def numbers_in(values) -> list[float]:
    if isinstance(values, dict | list):
        parts = values.values() if isinstance(values, dict) else values
        return [n for part in parts for n in numbers_in(part)]
    return [values]


# ---- whole scripts


@pytest.mark.slow
def test_explaining_reports_times_of_all_variants_and_sizes_of_files(capsys, monkeypatch):
    monkeypatch.setattr(explaining, "UNSEEN", explaining.UNSEEN[:2])
    few = ["--tasks", "12", "--layers", "4", "--evaluations", "2", "--permutations", "20"]
    explaining.main([*few, "--samples", "first", "--rounds", "1"])
    report = parse_report(capsys.readouterr().out)
    assert report["benchmark"] == "explaining"
    assert list(report["variants"]) == explaining.VARIANTS
    assert set(report["ratios"]) == {"answers_by_task_over_answers"}
    assert {"routes.png", "report.html", "routes.gif"} <= set(report["sizes_mb"])


def test_evaluation_reports_times_and_decoding_steps(capsys):
    names = ["soft", "soft_by_file", "soft_by_file_unshared", "one_expert"]
    few = ["--tasks", "2", "--examples", "2", "--num_beams", "2", "--max_output_length", "6"]
    evaluation.main([*few, "--rounds", "1", "--variants", *names])
    report = parse_report(capsys.readouterr().out)
    assert report["benchmark"] == "evaluation"
    assert list(report["variants"]) == names
    for values in report["variants"].values():
        assert set(values) == {"median_s", "min_s", "cpu_s", "decoding_steps"}
    steps = {name: values["decoding_steps"] for name, values in report["variants"].items()}
    assert steps["soft"] == steps["one_expert"] < steps["soft_by_file"] == steps["soft_by_file_unshared"]
    assert report["ratios"]["soft_by_file_over_soft_decoding_steps"] > 1


def test_coverage_is_simulated_for_every_case_and_interval(capsys, tmp_path):
    few = ["--simulations", "20", "--resamples", "20", "--tasks", "6", "--seeds", "1", "2"]
    coverage.main([*few, "--output_file", str(tmp_path / "coverage.csv")])
    printed = capsys.readouterr()
    report = parse_report(printed.out)
    assert report["benchmark"] == "coverage"
    assert list(report["variants"])[:3] == [
        "normal_6x1_little",
        "normal_6x1_realistic",
        "normal_6x2_realistic",
    ]
    assert len(report["variants"]) == 9
    assert set(report["variants"]["few_6x2_realistic"]) == set(coverage.intervals(20, None))
    assert "| skewed | 6 | 1, little noise |" in printed.err
    assert len((tmp_path / "coverage.csv").read_text().splitlines()) == 1 + 3 * (4 + 4 + 6)


def test_train_step_reports_times_of_all_variants_and_their_ratios(capsys):
    train_step.main([*TRAIN, "--steps", "1", "--no_memory", "--variants", *train_step.VARIANTS])
    report = parse_report(capsys.readouterr().out)
    assert report["benchmark"] == "train_step"
    assert list(report["variants"]) == ["3"]
    assert list(report["variants"]["3"]) == train_step.VARIANTS
    for values in report["variants"]["3"].values():
        parts = {"forward_s", "forward_backward_s", "optimizer_s", "optimizer_share"}
        assert set(values) == {"median_s", "min_s"} | parts
        assert values["forward_s"] <= values["forward_backward_s"] <= values["median_s"]
        assert values["optimizer_share"] < 1
    assert {
        "straight_through_slow_over_fast_step",
        "one_hot_over_plain_forward_backward",
        "one_hot_second_over_plain_second_forward_backward",
        "average_over_plain_step",
        "one_expert_over_plain_step",
        "merged_softmax_over_softmax_step",
        "merged_softmax_one_task_over_softmax_forward_backward",
    } <= set(report["ratios"]["3"])
    assert report["across_experts"] == {}


@pytest.mark.parametrize(("precision", "dtype"), [("no", torch.float32), ("bf16", torch.bfloat16)])
def test_products_have_the_precision_of_the_flag(precision, dtype, capsys, monkeypatch):
    products, linear = set(), torch.nn.functional.linear

    def recorded(*given):
        found = linear(*given)
        products.add(found.dtype)
        return found

    monkeypatch.setattr(torch.nn.functional, "linear", recorded)
    flags = ["--steps", "1", "--no_memory", "--mixed_precision", precision]
    for script, own, variant in ((train_step, TRAIN, "straight_through"), (predict, PREDICT, "soft")):
        products.clear()
        script.main([*own, *flags, "--variants", variant])
        assert parse_report(capsys.readouterr().out)["settings"]["mixed_precision"] == precision
        assert dtype in products
        assert (torch.bfloat16 in products) == (dtype == torch.bfloat16)


def test_several_numbers_of_experts_are_compared_with_plain_bart_in_a_table(capsys):
    names = ["straight_through", "random", "plain"]
    train_step.main([*TRAIN, "--steps", "1", "--no_memory", "--num_experts", "4", "2", "--variants", *names])
    printed = capsys.readouterr()
    report = parse_report(printed.out)
    assert {E: list(variants) for E, variants in report["variants"].items()} == {"2": names, "4": names}
    assert "random_over_plain_forward_backward" in report["ratios"]["4"]
    assert {"random_flatness", "straight_through_growth"} <= set(report["across_experts"])
    assert "E = 2 | E = 4 |" in printed.err
    assert "| `random` |" in printed.err


def test_start_up_reports_times_of_all_variants(capsys):
    start_up.main(["--rounds", "1"])
    report = parse_report(capsys.readouterr().out)
    assert report["benchmark"] == "start_up"
    assert list(report["variants"]) == start_up.VARIANTS
    assert all(set(values) == {"median_s", "min_s", "cpu_s"} for values in report["variants"].values())
    assert list(report["ratios"]) == ["from_bart_drawing_over_from_bart"]


def test_predict_reports_times_of_all_variants_and_their_ratios(capsys):
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


@pytest.mark.usefixtures("forked_python")
def test_a_grid_is_compared_with_one_process_per_configuration_and_has_the_same_results(capsys):
    one = ["--samples", "1", "--learning_rate_list", "1e-3", "--bsz_list", "8", "--total_steps", "1"]
    finetune_grid.main([*one, "--rounds", "1", "--variants", "grid", "processes"])
    report = parse_report(capsys.readouterr().out)
    assert list(report["variants"]) == ["grid", "processes"]
    assert all(set(v) == {"median_s", "min_s", "largest_process_gb"} for v in report["variants"].values())
    assert set(report["ratios"]) == {"processes_over_grid"}


def test_task_vectors_in_batches_are_compared_with_one_at_a_time(capsys):
    few = ["--tasks", "1", "--examples", "3", "--total_steps", "1", "--rounds", "1"]
    task_vectors.main(few)
    report = parse_report(capsys.readouterr().out)
    assert list(report["variants"]) == task_vectors.VARIANTS
    assert all(set(values) == {"median_s", "min_s"} for values in report["variants"].values())
    assert set(report["ratios"]) == {
        "text_one_by_one_over_text",
        "fisher_one_by_one_over_fisher",
        "fisher_layers_one_by_one_over_fisher_layers",
    }


@pytest.mark.usefixtures("forked_python")
def test_memory_is_measured_in_a_separate_process_of_the_script(capsys, monkeypatch):
    monkeypatch.chdir(REPOSITORY.parent)
    train_step.main([*TRAIN, "--variants", "plain", "--steps", "1"])
    (values,) = parse_report(capsys.readouterr().out)["variants"]["3"].values()
    assert values["peak_memory_gb"] > 0.05


# ---- variants


@pytest.fixture
def tiny_settings():
    flags = [*TRAIN, "--no_memory", "--num_experts", "4", "--tasks_per_batch", "2"]
    return train_step.parse_settings(flags)


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
    model = train_step.build_routed(tiny_settings, 4)
    train_step.take_routes(model, "merged_softmax")  # a previous variant must have no effect
    train_step.take_routes(model, route)
    routes_BLE = model.draw_routes(tiny_settings.task_ids(route, 0))
    assert ((routes_BLE > 0).sum(-1) == experts_per_row).all()
    assert routes_BLE.requires_grad == is_trained
    assert (model.config.expert_mixing == "parameters") == route.startswith("merged")


@pytest.mark.parametrize("route", ["softmax", "straight_through", "top_k", "merged_softmax"])
def test_a_step_computes_the_gradients_of_the_whole_graph_for_router_and_experts(tiny_settings, route):
    model = train_step.build_routed(tiny_settings, 4).double().eval()  # no dropout, no noise
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


def test_tasks_take_turns_in_a_batch_and_change_from_round_to_round(tiny_settings):
    assert tiny_settings.task_ids("softmax", 0).tolist() == [0, 1, 0, 1]
    assert tiny_settings.task_ids("softmax", 1).tolist() == [4, 5, 4, 5]
    assert tiny_settings.task_ids("merged_softmax_one_task", 1).tolist() == [4, 4, 4, 4]
    assert tiny_settings.task_ids("one_hot", 0).tolist() == [0, 1, 2, 3]
    assert tiny_settings.task_ids("one_hot_second", 0).tolist() == [0, 1, 2, 3, 4, 5]


def test_all_variants_share_one_set_of_weights(tiny_settings):
    model = train_step.build_routed(tiny_settings, 4)
    plain = model.to_bart(measuring.one_hot_routes(model, 1)[0])
    one_expert = measuring.with_one_expert(plain, "tiny")
    own = {id(p) for p in model.parameters()}
    assert {id(p) for p in plain.parameters()} < own
    assert {id(p) for p in one_expert.parameters()} == {id(p) for p in plain.parameters()}


# ---- ratios


def seconds(forward: float, backward: float, optimizer: float) -> dict[str, float]:
    both, step = forward + backward, forward + backward + optimizer
    fields = dict(forward_s=forward, forward_backward_s=both, median_s=step, min_s=step)
    return fields | dict(optimizer_s=optimizer, optimizer_share=optimizer / step)


@pytest.fixture
def measured():
    """Plain BART: forward 1 s, backward 2 s, optimizer 1 s; all times are doubled for E = 4."""
    return {
        E: {
            "straight_through": seconds(slow * (1 + (E - 1)), slow * 2, slow * E),
            "softmax": seconds(slow * E, slow * 2 * E, slow * E),
            "merged_softmax": seconds(slow * 3, slow * 6, slow * E),
            "random": seconds(slow * 1.1, slow * 2.2 * (1.1 if E == 8 else 1), slow * E),
            "plain": seconds(slow, slow * 2, slow),
        }
        for E, slow in ((2, 1), (4, 2), (8, 1))
    }


def test_ratios_are_between_variants_of_the_same_rounds(measured):
    ratios = comparing.ratios_of(measured[4])
    assert ratios["straight_through_over_plain_forward_backward"] == pytest.approx(12 / 6)
    assert ratios["straight_through_over_plain_step"] == pytest.approx(20 / 8)
    assert ratios["merged_softmax_over_softmax_forward_backward"] == pytest.approx(18 / 24)
    assert ratios["merged_average_over_average_step"] is None


def test_growth_is_in_plain_forward_passes_and_flatness_is_from_smallest_to_largest(measured):
    across = comparing.across_experts(measured)
    assert across["straight_through_growth"] == pytest.approx(1)
    assert across["straight_through_backward_growth"] == pytest.approx(0, abs=1e-9)
    assert across["softmax_growth"] == pytest.approx(3)
    assert across["softmax_backward_growth"] == pytest.approx(2)
    assert across["softmax_flatness"] == pytest.approx(4)
    assert across["random_flatness"] == pytest.approx((1.1 + 2.42) / 3.3)
    assert "plain_growth" not in across
    assert comparing.across_experts({2: measured[2]}) == {}


def test_the_table_has_a_row_per_variant_and_a_column_per_number_of_experts(measured):
    header, _, *rows = comparing.markdown_table(measured).splitlines()
    assert header.endswith("| E = 2 | E = 4 | E = 8 |")
    assert rows[0] == "| `straight_through` | 1.33 / 1.50 (33%) | 2.00 / 2.50 (40%) | 3.33 / 4.50 (44%) |"
    assert rows[-1] == "| `plain`, seconds | 3 / 4 (25%) | 6 / 8 (25%) | 3 / 4 (25%) |"


# ---- errors


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--variants", "one_hott"], "--variants one_hott must be one of average softmax"),
        (["--num_experts", "1", "2"], "--num_experts 1 must be at least 2; use the variant one_expert"),
        (["--mixed_precision", "fp16"], "--mixed_precision fp16 needs a GPU; on a CPU give bf16 or no"),
        (["--tasks_per_batch", "65"], "--tasks_per_batch 65 must be from 0 to 64"),
    ],
)
def test_invalid_flags_are_errors(flags, message, capsys):
    with pytest.raises(SystemExit):
        train_step.main([*TINY, *flags])
    assert message in capsys.readouterr().err


def test_a_model_that_exceeds_memory_is_an_error_before_it_is_built(capsys, monkeypatch):
    monkeypatch.setattr(measuring, "machine_memory_gb", lambda device: (20.0, 24.0))
    with pytest.raises(SystemExit):
        train_step.main(["--model_size", "base", "--num_experts", "2", "16"])
    assert (
        "--model_size base --num_experts 16: weights, gradients and AdamW's state of 1629M parameters take "
        "26.1 GB, plus activations; this machine has 24.0 GB." in capsys.readouterr().err
    )


def test_several_numbers_of_experts_have_a_smaller_default_size_and_warn_about_little_memory(
    capsys, monkeypatch
):
    monkeypatch.setattr(measuring, "machine_memory_gb", lambda device: (7.0, 10.0))
    assert train_step.parse_settings(["--num_experts", "2", "16"]).model_size == "half"
    assert "warning: --model_size half --num_experts 16" in capsys.readouterr().err
    assert train_step.parse_settings(["--num_experts", "2"]).model_size == "base"


def test_copied_experts_and_counted_parameters_match_those_of_an_initialised_model(tiny_settings):
    real = RoutingBartForConditionalGeneration(measuring.model_config("tiny", 4))
    filled = measuring.build_routing_model(tiny_settings, 4)
    shapes = {name: p.shape for name, p in real.named_parameters()}
    assert {name: p.shape for name, p in filled.named_parameters()} == shapes
    assert all(p.isfinite().all() and p.abs().max() < 2 for p in [*filled.parameters(), *filled.buffers()])
    assert measuring.count_parameters("tiny", 4) == sum(p.numel() for p in real.parameters())


def test_the_memory_of_this_machine_is_counted_in_pages(monkeypatch):
    assert measuring.machine_memory_gb("cpu")[1] == pytest.approx(psutil.virtual_memory().total / 1e9)
    pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 4_000_000, "SC_AVPHYS_PAGES": 1_000_000}
    monkeypatch.setattr(os, "sysconf", pages.get)
    assert measuring.machine_memory_gb("cpu") == pytest.approx((4.096, 16.384))
