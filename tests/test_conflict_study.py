"""The conflict study: the flags and steps of its variants, tuned rates, wrong settings, a whole study."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import fork_server
import pandas as pd
import pytest

from routing_moe.config.compose import ComposeSettings
from routing_moe.config.flags import parse
from routing_moe.config.merge import MergeSettings
from routing_moe.config.train import TrainSettings
from routing_moe.studies import conflict
from routing_moe.studies.conflict_runs import Level
from routing_moe.studies.conflict_settings import ConflictStudy
from routing_moe.studies.conflict_variants import BUDGETS, DEFAULT, INGREDIENTS, VARIANTS
from routing_moe.studies.runs import Run, with_needs
from task.conflict_gym.settings import BartSettings, GymSettings
from task.task_emb.gradient import GradientSettings

LEVEL = "conflict1_16skills"
KINDS = {
    "routing_moe.cli.compose": ComposeSettings,
    "routing_moe.cli.merge": MergeSettings,
    "routing_moe.cli.train": TrainSettings,
    "task.conflict_gym.bart": BartSettings,
    "task.conflict_gym.generate": GymSettings,
    "task.task_emb.gradient": GradientSettings,
}
RATE, TUNED = 0.01, "tuning/conflict1_16skills"


def study_of(folder: Path, **fields) -> ConflictStudy:
    small = dict(conflicts=(1.0,), seeds=(11,), rates=(RATE,), total_steps=33, dense_steps=20, refine_steps=4)
    return ConflictStudy(output_dir=folder, **small | fields)


def level_of(study: ConflictStudy) -> Level:
    return Level(study, 1.0)


def finish(run: Run, text: str = "") -> None:
    (run.folder / run.result).parent.mkdir(parents=True, exist_ok=True)
    (run.folder / run.result).write_text(text)


def planned(study: ConflictStudy) -> dict[str, list[tuple[str, dict]]]:
    """Returns {name of a run: (module, flags) of its commands}, in order; all flags must exist."""
    commands = {}
    for run in dict.fromkeys(with_needs(level_of(study).gym(11).compared(name) for name in study.variants)):
        commands[run.name] = [(module, parse(KINDS[module], flags)) for module, *flags in run.commands()]
        finish(run, '{"train": ["a", "b"]}' if run.result == "split.json" else "7" * run.printed)
        if "refinements" in run.name:
            (run.folder / "reassigned_routes.json").write_text('{"a": 4, "b": 0}')
    return commands


def test_all_variants_have_existing_flags_and_the_same_total_steps(tmp_path):
    steps = dict(total_steps=400, refine_steps=300)
    study = study_of(tmp_path, variants=tuple(VARIANTS), refine_flags="--adam_epsilon 3", **steps)
    plan = planned(study)
    ((_, dense),) = plan[f"dense_runs/{LEVEL}_seed11"]
    assert (dense["total_steps"], dense["save_period"], dense["hide_task_names"]) == (20, 2, True)
    ((_, gradient),) = plan[f"vectors/{LEVEL}_seed11"]
    assert [int(name.split("-")[0]) for name in gradient["checkpoint_names"]] == [10, 12, 14, 16, 18, 20]
    ((_, refinement),) = plan[f"refinements/{LEVEL}_seed11"]
    steps, ways, scored = dict.fromkeys(VARIANTS, 0), {}, {}
    for name, commands in plan.items():
        variant = name.split("/")[1]
        for module, flags in commands if name.startswith(LEVEL) else ():
            if "do_train" in flags and "equal_flops" not in flags:
                has_dense = "vanilla_checkpoint" in flags or "taskvecs" in flags
                steps[variant] += flags["total_steps"] + (20 if has_dense else 0)
                ways[variant] = {flag: value for flag, value in flags.items() if flag != "output_dir"}
                assert flags["learning_rate"] == RATE
            elif module == "routing_moe.cli.train" and "predict_split" in flags:
                scored.setdefault(variant, []).append((flags.get("task_routes"), flags.get("prefix")))
    assert (steps.pop("dense_flops"), refinement["total_steps"]) == (7, 301)
    assert {steps.pop(name) for name in ("refined_composed", "refined_restarted")} == {400 - 301}
    assert set(steps.values()) == {400}
    assert not [way for way in ways.values() if list(ways.values()).count(way) > 1]
    # Tasks move in the refinement as in the refined mixture, and only there.
    moving = {name: way for name, way in ways.items() if "reassign_every" in way} | {"refinement": refinement}
    ingredients = {f"refined_{name}" for name in INGREDIENTS}
    low_rank = {"lora_refined", "lora_refined_trained"}
    assert set(moving) == {"refined", "refined_random", "refinement"} | low_rank | ingredients
    assert ways["lora_refined_trained"]["base_lr"] == pytest.approx(RATE / 10)
    assert {(way["reassign_until"], way["adam_epsilon"]) for way in moving.values()} == {(300, 3.0)}
    by_loss, by_vectors = ("lowest_loss", None), (None, "nearest_cluster-")
    assert scored["refined"] == scored["clusters"] == scored["refined_composed"] == [by_loss, by_vectors]
    assert scored["dense"] == scored["oracle"] == [(None, None)]
    assert set(scored) == set(DEFAULT) - {"dense_flops"}
    (compose,) = plan[f"refinements/{LEVEL}_seed11/composed4_routes.json"]
    assert compose == (
        "routing_moe.cli.compose",
        dict(run=tmp_path / f"refinements/{LEVEL}_seed11", num_experts=4),
    )
    assert Path(ways["refined_composed"]["task_routes"]).name == "composed4_routes.json"


def test_as_few_clusters_as_experts_are_not_composed(tmp_path):
    gym = level_of(study_of(tmp_path)).gym(11)
    composed = gym.composed_routes()
    finish(gym.refinement())
    (composed.folder / "reassigned_routes.json").write_text('{"a": 3, "b": 0}')
    assert composed.commands() == []
    assert json.loads((composed.folder / composed.result).read_text()) == {"a": 3, "b": 0}


def test_only_what_a_variant_needs_is_planned(tmp_path):
    assert set(planned(study_of(tmp_path, variants=("oracle",), unseen=()))) == {
        f"gyms/{LEVEL}_seed11", f"gyms/{LEVEL}_seed11/width16", f"{LEVEL}/oracle/seed11"
    }  # fmt: skip
    # A later call with --unseen scores the finished run.
    later = level_of(study_of(tmp_path, variants=("oracle",), unseen=("oracle",))).gym(11).compared("oracle")
    assert (later.is_finished, later.needs[0].is_finished) == (False, True)
    assert later.log_file != later.needs[0].log_file
    flops = list(planned(study_of(tmp_path, variants=("dense_flops",))))
    run = f"{LEVEL}/dense_flops/seed11"
    assert flops[-3:] == [f"{LEVEL}/refined/seed11", f"{run}.steps_of_refined", run]


def test_steps_are_those_of_the_level_unless_they_are_given():
    study = ConflictStudy()
    assert study.budget(0.0) == study.budget(1.0) == BUDGETS[1.0, 16] != study.budget(0.5)
    assert ConflictStudy(dense_steps=10).budget(1.0).dense == 10
    assert ConflictStudy(dense_steps=10, skills=4).budget(1.0) is None


def test_the_rate_is_the_best_mean_over_the_tuning_gyms(tmp_path, capsys):
    rates = (0.02, 0.01, 0.004, 0.001)
    study = study_of(
        tmp_path, rates=rates, variants=("dense_no_names", "dense", "softmax", "refined"), tune_seeds=(1, 2)
    )
    level = level_of(study)
    runs = {run.name: run for run in level.tuning_runs(study.trained)}
    assert list(runs) == [
        f"{TUNED}/{name}/lr{rate}/seed{seed}"
        for name in ("dense", "softmax")
        for rate in rates
        for seed in (1, 2)
    ]
    with pytest.raises(RuntimeError, match="no tuning run of dense is finished"):
        level.chosen_rate("dense_no_names")
    for rate, scores in ((0.004, (0.5, 0.3)), (0.01, (0.3, 0.5)), (0.02, (0.9, 0.9))):
        for seed, score in zip((1, 2), scores, strict=True):
            folder = runs[f"{TUNED}/dense/lr{rate}/seed{seed}"].folder
            folder.mkdir(parents=True)
            (folder / "losses.csv").write_text(f",steps,dev_performance\n0,5,{score}\n1,10,0.05\n")
            if (rate, seed) != (0.02, 2):  # it diverged
                (folder / "finished").touch()
    assert (
        level.chosen_rate("dense") == level.chosen_rate("dense_no_names") == 0.004
    )  # of equal ones the lower
    conflict.report_rates(study)
    assert (
        f"{LEVEL}: learning rate of dense: 0.004; dev scores 0.004: 0.400, 0.01: 0.400"
        in capsys.readouterr().out
    )
    conflict.report_rates(replace(study, rates=(0.004, 0.01)))
    assert "dense: 0.004 (at the edge of the grid)" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "tuning.csv")
    assert table[["level", "rate", "n", "dev", "chosen", "at_edge"]].values.tolist() == [
        [LEVEL, 0.004, 2, 0.4, True, True], [LEVEL, 0.01, 2, 0.4, False, False]
    ]  # fmt: skip
    conflict.report_rates(replace(study, variants=("softmax",)))  # a call for others keeps these rows
    assert pd.read_csv(tmp_path / "tuning.csv").equals(table)
    assert level_of(study_of(tmp_path)).chosen_rate("dense") == RATE  # a single rate is used as it is
    other = level_of(study_of(tmp_path / "other", rates=rates, rates_of=tmp_path / "tuning.csv"))
    assert (other.chosen_rate("dense_flops"), other.tuning_runs(["dense"])) == (0.004, [])
    lacking = study_of(tmp_path / "other", rates_of=tmp_path / "tuning.csv", variants=("dense", "softmax"))
    assert any("has no rate of softmax for conflict1_16skills" in line for line in lacking.problems())


def test_low_rank_experts_are_also_tuned_at_higher_rates(tmp_path):
    level = level_of(study_of(tmp_path, rates=(0.01, 0.02), variants=("oracle_skills", "poly")))
    tuned_rates = {run.name.split("/")[3] for run in level.tuning_runs(["poly"])}
    assert tuned_rates == {"lr0.01", "lr0.02", "lr0.048", "lr0.096"}
    assert level.rates("softmax") == (0.01, 0.02)


def test_hours_are_those_of_finished_runs_of_the_same_kind(tmp_path, capsys):
    study = study_of(tmp_path, variants=("dense", "oracle"), jobs=2)
    times = [f"{TUNED}/dense/lr0.01/seed1,1800", f"{TUNED}/dense/lr0.02/seed1,5400", f"gyms/{LEVEL}_seed1,0"]
    times += [f"{TUNED}/oracle/lr0.01/seed1,10800", f"gyms/{LEVEL}_seed1/width16,0"]
    lines = "\n".join(f"{time},finished" for time in times)
    (tmp_path / "times.csv").write_text(f"run,seconds,ended\n{lines}\n")
    runs = [level_of(study).gym(seed).run(name) for name in study.variants for seed in (11, 12)]
    conflict.report_hours(study, runs)
    assert capsys.readouterr().out == "8 runs, about 4.0 hours\n"


def test_answer_losses_select_refined_mixtures_where_no_rates_are_tuned(tmp_path):
    flags = "--select_by answer_loss"
    assert study_of(tmp_path, rates=(0.01,), refine_flags=flags).problems() == []
    (problem,) = study_of(tmp_path, rates=(0.01, 0.02), refine_flags=flags).problems()
    assert problem.startswith('--refine_flags "--select_by answer_loss": rates are chosen by dev scores')


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--variants dens", "--variants holds 'dens'; choose from "),
        ("--seeds 101", "--seeds holds 101, a seed that rates are tuned on"),
        ("--seeds 11 11", "--seeds has a value more than once"),
        ("--skills 5", "--skills is 5; it must be a square from 4 to 64"),
        ("--conflicts 1.5", "--conflicts holds 1.5; it must be from 0 to 1"),
        (
            "--dense_steps 25",
            "--dense_steps is 25; it must be a multiple of 10, and with --refine_steps (4) below",
        ),
        ("--rates_of no.csv", "--rates_of no.csv: no such file; give the tuning.csv of a study"),
        (
            "--refine_flags=--select_by=answer_loss --rates 0.01 0.02",
            '--refine_flags "--select_by=answer_loss": rates are chosen by dev scores',
        ),
        ("--total_steps 34 --rates 0.02", "--total_steps is 34, but in "),
    ],
)
def test_wrong_settings_are_errors(tmp_path, capsys, flags, message):
    study_of(tmp_path).save_settings()
    given = ["--total_steps", "33", "--dense_steps", "20", "--refine_steps", "4", "--rates", "0.01"]
    assert conflict.main([*given, *flags.split(), "--output_dir", str(tmp_path)]) == 2
    assert f"error: {message}" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["study.json"]


@pytest.mark.slow
def test_a_whole_study_trains_and_compares(tmp_path, monkeypatch, capfd):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {" ".join(fork_server.client())} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    flags = "--conflicts 1 --skills 4 --tasks_per_skill 1 --seeds 11 --total_steps 16 --dense_steps 10"
    flags += " --refine_steps 2 --rates 0.003 0.01 --tune_seeds 1"
    flags += " --variants dense dense_flops refined refined_composed oracle"
    flags += " --refine_flags=--reassign_from=1 --jobs 2 --output_dir"
    study = [*flags.split(), str(tmp_path / "out"), "--gym_flags=--unseen_tasks 2 --test_rows 8 --dev_rows 4"]
    assert conflict.main(study) == 0
    folder = tmp_path / "out/conflict1_4skills"
    steps = int((folder / "dense_flops/seed11.steps_of_refined").read_text())
    assert 16 <= steps < 40  # the gradients and the losses count, too
    overview = pd.read_csv(folder / "overview.csv").set_index("variant")
    assert overview["steps"].to_dict() == dict.fromkeys(overview.index, 16) | {"dense_flops": steps}
    assert overview["gflops"]["dense_flops"] == pytest.approx(overview["gflops"]["refined"], rel=0.1)
    assert (folder / "comparison.md").is_file()
    assert "learning rate of dense: 0.0" in capfd.readouterr().out
    assert conflict.main(study) == 0  # only the tables are written again
    assert "started  " not in capfd.readouterr().out
