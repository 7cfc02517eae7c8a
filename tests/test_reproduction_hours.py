"""The estimate of hours of reproduce_paper.sh --dry_run: seconds, rows, lengths, sizes."""

import json
import math
from pathlib import Path

import pytest
from tiny_runs import TRAIN_TASKS, write_bart

from benchmarks import measuring, reproduction
from routing_moe.studies import paper
from routing_moe.studies.paper_runs import ABLATION, Answering, CostedRun, PaperRuns, Work


@pytest.fixture
def hours(world, tmp_path, monkeypatch) -> reproduction.Hours:
    """Hours of a study whose gym lacks one of two test tasks, with given seconds."""
    split = tmp_path / "split.json"
    split.write_text(json.dumps(dict(train=TRAIN_TASKS, test=["plural", "missing"])))
    study = paper.PaperStudy(model=str(world.bart), train_dir=world.gym, custom_tasks_splits=split)
    runs = PaperRuns(study.resolved())
    hours = reproduction.Hours("tiny", reproduction.Texts(runs, str(world.bart)), runs)
    hours.lengths = {"train": (10, 2), "test": (20, 4)}
    for name, value in dict(
        steps={"plain": (8.0, 1.0)}, answers={"train": {"plain": 2.0}}, ablations=7
    ).items():
        monkeypatch.setitem(vars(hours), name, value)
    return hours


def test_hours_are_steps_and_rows_times_their_seconds(hours, tmp_path):
    # A step of 32 train rows takes 8 s and an update 1 s; test rows are twice as long.
    work = Work("plain", 3600), Work("plain", 3600, (4, 8), "test")
    run = CostedRun("training a/seed1", tmp_path, list, work=work)
    assert hours.of_training(run) == 9 + (2 + 1) + (4 + 1)
    assert math.isnan(hours.of_answers(run))
    answers = (
        Answering("plain", "train", "dev", times=2),
        Answering("plain", "train", "dev", most=2, times=ABLATION),
    )
    run = CostedRun("training a/seed1", tmp_path, list, answers=answers)
    rows = 3 * 3  # of three tasks
    assert hours.of_answers(run) * 3600 == pytest.approx(2 * (2 * rows + 7 * 3 * 2))


def test_rows_and_lengths_are_those_of_the_gym_or_assumed(hours, world, tmp_path):
    texts = hours.texts
    assert texts.rows("train", "test", ("all",), None) == 3 * 3 * 2
    assert texts.rows("test", "dev", ("100",), None) == 3 + 34
    assert texts.rows("test", "dev", ("100", "13"), 2) == 2 * 2 + 2 * 2
    assert texts.rows("test", "test", ("all",), None) == 3 * 2 + 2900 * 5
    source, target = texts.lengths("train")
    assert 3 < target < source < 30
    texts.known = set()
    assert texts.lengths("test") == (43, 10)


def test_encoder_and_decoder_may_differ_in_layers(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "SIZES", dict(measuring.SIZES))
    write_bart(tmp_path)  # 2 + 1 layers
    config = measuring.model_config(reproduction.model_size(str(tmp_path)), 3)
    assert (config.encoder_layers, config.decoder_layers) == (2, 1)


def test_sizes_of_published_names_need_no_download(monkeypatch):
    monkeypatch.setattr(reproduction, "load_bart_config", lambda name: pytest.fail("the hub is asked"))
    assert reproduction.model_size("facebook/bart-base") == "base"


@pytest.mark.slow
def test_a_dry_run_lists_the_runs_and_estimates_their_hours(world, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(measuring, "SIZES", dict(measuring.SIZES))
    (tmp_path / "out/vectors/text").mkdir(parents=True)
    (tmp_path / "out/vectors/text/meta.json").write_text("{}")
    flags = ["--model", str(world.bart), "--train_dir", str(world.gym), "--output_dir", str(tmp_path / "out")]
    assert reproduction.main(["paper", *flags, "--variants", "text", "--ablate_flags", "none"]) == 0
    output = capsys.readouterr().out
    assert "few_shot" in output
    assert "Not included: text vectors" in output
    table = reproduction.pd.read_csv(tmp_path / "out/hours.csv")
    assert table["state"].tolist() == ["finished"] + ["to do"] * (len(table) - 1)
    assert (table.set_index("step")["training_h"].drop("vectors").dropna() > 0).all()
    assert not Path(tmp_path / "out/study.json").exists()
