"""The estimate of hours of reproduce_paper.sh --dry_run: batches of the device, seconds, lengths, rows."""

import argparse
import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_micro_batches import bart_base
from tiny_runs import ROOT, TRAIN_TASKS, write_bart

from benchmarks import measuring, reproduction
from benchmarks.reproduction_batches import MODELS, DeviceBatches
from benchmarks.reproduction_times import Times, line_through
from dataloader.errors import InputError
from routing_moe.config.shared import Recipe
from routing_moe.evaluation.batches import bytes_of_long_example
from routing_moe.optim.micro_batches import Cut
from routing_moe.studies.paper_runs import ABLATION, Answering, CostedRun, Work

CPU, CUDA = (SimpleNamespace(device=torch.device(name), num_processes=1) for name in ("cpu", "cuda"))
GB = 10**9


def times_of(passes, answers=None, **changed) -> Times:
    batches = DeviceBatches.on(CPU, "tiny", 3, 4)
    defaults = dict(updates={"plain": 1.0}, answers=answers or {}, at_once={"train": 20}, load=0)
    return Times(batches=batches, passes=passes, **defaults | changed)


def test_hours_are_steps_times_seconds_of_passes_and_updates(world):
    data = reproduction.GymData(world / "none", world.gym / "split.json", "none", (10, 2))
    data.lengths = {"train": np.full((64, 2), (10, 2))}.get  # 12 tokens each
    times = times_of(
        passes={"plain": {24: 5.0, 96: 8.0}},  # 4 s for a micro-batch, 1 s for 24 tokens
        answers={("plain", "train"): {2: 8.0, 4: 12.0}},  # 4 s for a batch, 2 s for a row
    )
    assert data.step_shape("train", 2, times.batches.cuts["plain"]) == (24, 1)
    assert times.step("plain", 24, 1) == 6
    assert times.step("plain", 48, 3) == 4 * 3 + 2 + 1
    work = Work("plain", 3600, (2, 4)), Work("plain", 7200, (2,))
    run = CostedRun("training a/seed1", world / "a", list, work=work)
    assert reproduction.training_hours(run, data, times) == 6 + 7 + 2 * 6
    files = {("train", "dev", ("first",), None): [10, 20], ("train", "test", ("100", "13"), 9): [9, 9]}
    data.file_rows = lambda *which: files[which]
    dev_files = Answering("plain", "train", "dev", times=40)
    run = dataclasses.replace(
        run, answers=(dev_files, Answering("plain", "train", "test", ("100", "13"), 9, 10))
    )
    dev, test = 2 * 30 + 2 * 4, 2 * 18 + 4  # 30 rows in two batches, 18 in one
    assert reproduction.answering_hours(run, data, times, 0) * 3600 == pytest.approx(40 * dev + 10 * test)
    alone = 2 * 30 + 2 * 4, 2 * 18 + 2 * 4
    hours = reproduction.answering_hours(dataclasses.replace(run, alone=True), data, times, 0)
    assert hours * 3600 == pytest.approx(40 * alone[0] + 10 * alone[1])
    run = dataclasses.replace(run, answers=(dataclasses.replace(dev_files, times=ABLATION),))
    assert reproduction.answering_hours(run, data, times, 7) * 3600 == pytest.approx(dev * 7)


# No time for a micro-batch; no time for a token.
@pytest.mark.parametrize(("small", "large"), [(1.0, 9.0), (3.0, 2.0)])
def test_seconds_of_a_pass_are_never_negative(small, large):
    times = times_of({"plain": {10: small, 40: large}}, updates={"plain": 0.0})
    assert times.step("plain", 40, 1) == large
    assert times.step("plain", 0, 1) == pytest.approx(0 if small == 1 else large)
    assert line_through({1: 3.0}) == (0.0, 3.0)


def on_a_gpu(monkeypatch, free: int) -> DeviceBatches:
    monkeypatch.setattr("routing_moe.optim.state_memory.free_gpu_memory", lambda device: free)
    return DeviceBatches.on(CUDA, "base", 3, 4)


@pytest.mark.parametrize(
    ("kind", "gb"), [("plain", 79), ("straight_through", 79), ("dense", 24), ("dense", 12)]
)
def test_steps_are_cut_as_training_on_the_device_cuts_them(monkeypatch, kind, gb):
    fields = MODELS[kind] | dict(task_names=[f"task{i}" for i in range(64)])
    model = bart_base(**fields)
    weights = 4 * sum(p.numel() for p in model.parameters())
    cut = on_a_gpu(monkeypatch, gb * GB).cuts[kind]
    monkeypatch.setattr("routing_moe.optim.state_memory.free_gpu_memory", lambda device: gb * GB - weights)
    expected = Cut.on(CUDA, model, Recipe())  # in training, the weights are on the GPU already
    assert cut == dataclasses.replace(expected, reason="")
    assert (cut.overhead, cut.multiple) == (8192, 8)
    data = reproduction.GymData("none", ROOT / "dataloader/splits/random.json", "none", (512, 64))
    tokens, count = data.step_shape("train", 32, cut)
    steps = data.lengths("train").reshape(-1, 32, 2)
    assert count == np.mean([len(expected.groups(*step.T, 32)) for step in steps])
    on_cpu = data.step_shape("train", 32, DeviceBatches.on(CPU, "base", 3, 4).cuts[kind])
    assert tokens > on_cpu[0]
    assert count < on_cpu[1]


def test_answers_are_cut_as_evaluation_on_the_device_cuts_them(monkeypatch):
    data = reproduction.GymData("none", ROOT / "dataloader/splits/random.json", "none", (512, 64))
    small, large = (on_a_gpu(monkeypatch, gb * GB).long_examples for gb in (24, 79))
    needed = bytes_of_long_example(bart_base().config, 4, 4)
    assert large == int(0.7 * (79 * GB - 12 * measuring.count_parameters("base", 3)) / needed)
    assert DeviceBatches.on(CPU, "base", 3, 4).long_examples == 32
    lengths = data.lengths("train")[:, 0] + 64
    for size in (32, small, large):
        rows = data.rows_at_once("train", size)
        assert size * 576 / lengths.max() <= rows <= 8 * size
    assert data.rows_at_once("train", large) > 2.5 * data.rows_at_once("train", small) > 100


def test_encoder_and_decoder_may_differ_in_layers(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "SIZES", dict(measuring.SIZES))
    write_bart(tmp_path)  # 2 + 1 layers
    config = measuring.model_config(reproduction.add_size(str(tmp_path)), 3)
    assert (config.encoder_layers, config.decoder_layers) == (2, 1)


def test_a_model_that_exceeds_the_memory_is_refused(monkeypatch):
    args = argparse.Namespace(model="tiny", num_experts=3, device="cpu")
    reproduction.check_memory("tiny", args)
    monkeypatch.setattr(reproduction.measuring, "machine_memory_gb", lambda device: (0.001, 0.001))
    with pytest.raises(InputError, match=r"--model tiny with 3 experts: .* this machine has 0\.0 GB"):
        reproduction.check_memory("tiny", args)


def test_sizes_of_published_names_need_no_download(monkeypatch):
    def request(name):
        raise AssertionError(f"the hub is asked for {name}")

    monkeypatch.setattr("routing_moe.model.loading.snapshot", request)
    assert reproduction.add_size("facebook/bart-base") == "base"
    assert measuring.SIZES["base"] == dict(
        layers=6, d_model=768, ffn=3072, heads=12, vocab=50265, positions=1024
    )


def test_lengths_and_rows_are_those_of_the_gym_or_assumed(world, tmp_path):
    split = tmp_path / "split.json"
    split.write_text(json.dumps(dict(train=TRAIN_TASKS, test=["plural", "missing"])))
    data = reproduction.GymData(world.gym, split, "none", (6, 64))
    assert len(data.lengths("train")) == 3 * 12
    assert data.lengths("train")[:, 0].max() == 6  # cut
    # " [plural] mouse" has 15 characters, " mice" has 5
    assert [6, 4] in data.lengths("test").tolist()
    assert data.described("train").startswith("from 3 tasks in")
    assert data.rows("train", "dev", ("first",)) == 3 * 3
    assert data.rows("train", "test", ("all",)) == 3 * 3 * 2
    assert data.rows("test", "dev", ("100",)) == 3 + 34
    assert data.rows("test", "dev", ("100", "13"), 2) == 2 * 2 + 2 * 2
    assert data.rows("test", "test", ("all",)) == 3 * 2 + 2900 * 5
    none = reproduction.GymData(tmp_path / "none", split, "none", (512, 64))
    assert none.described("test").startswith("assumed")
    assert none.mean_lengths("train") == (65, 6)
    tokens, micro_batches = none.step_shape("train", 32, Cut(16384))
    assert 32 * 71 < tokens < 32 * 110
    assert micro_batches > 2
    assert none.rows("test", "dev", ("all",)) == 2 * 34 * 5


def test_ablations_are_of_experts_features_and_random_sets():
    data = reproduction.GymData("none", ROOT / "dataloader/splits/random.json", "none", (512, 64))
    assert (reproduction.ablations("tiny", data, 3) - 1 - 4 * 3) % 21 == 0
    assert reproduction.ablations("tiny", data, 3) > 1 + 4 * 3
