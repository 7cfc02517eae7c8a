"""The conflict study: the flags and steps of its variants, tuned rates, wrong settings, a whole study."""

import sys
from pathlib import Path

import fork_server
import pandas as pd
import pytest

from routing_moe.config.flags import parse
from routing_moe.config.merge import MergeSettings
from routing_moe.config.train import TrainSettings
from routing_moe.studies import conflict
from routing_moe.studies.conflict import ConflictGym, ConflictStudy, chosen_rate, tuning_gym, tuning_runs
from routing_moe.studies.conflict_variants import VARIANTS
from routing_moe.studies.runs import Run, with_needs
from task.conflict_gym.settings import BartSettings, GymSettings
from task.task_emb.fisher import FisherSettings
from task.task_emb.gradient import GradientSettings
from task.task_emb.text import TextSettings

LEVEL = "conflict1_16skills"
KINDS = {
    "routing_moe.cli.merge": MergeSettings,
    "routing_moe.cli.train": TrainSettings,
    "task.conflict_gym.bart": BartSettings,
    "task.conflict_gym.generate": GymSettings,
    "task.task_emb.fisher": FisherSettings,
    "task.task_emb.gradient": GradientSettings,
    "task.task_emb.text": TextSettings,
}
WITH_VECTORS = {"gradient_inputs", "text_clusters", "fisher_clusters", "clusters", "composed"}


def study_of(folder: Path, **fields) -> ConflictStudy:
    small = dict(conflicts=(1.0,), seeds=(11,), rates=(0.01,), total_steps=33, dense_steps=20)
    return ConflictStudy(output_dir=folder, **small | fields)


def finish(run: Run, text: str = "") -> None:
    (run.folder / run.result).parent.mkdir(parents=True, exist_ok=True)
    (run.folder / run.result).write_text(text)


def planned(study: ConflictStudy) -> dict[str, list[tuple[str, dict]]]:
    """Returns {name of a run: (module, flags) of its commands}, in order; all flags must exist."""
    commands = {}
    for run in dict.fromkeys(
        with_needs(ConflictGym(study, 1.0, 16, 11).run(name) for name in study.variants)
    ):
        commands[run.name] = [(module, parse(KINDS[module], flags)) for module, *flags in run.commands()]
        finish(run, '{"train": ["a", "b"]}' if run.result == "split.json" else "7" * run.printed)
    return commands


def test_all_variants_have_existing_flags_and_the_same_total_steps(tmp_path):
    plan = planned(study_of(tmp_path))
    ((_, dense),) = plan[f"dense_runs/{LEVEL}_seed11"]
    assert (dense["total_steps"], dense["save_period"], dense["hide_task_names"]) == (20, 2, True)
    ((_, gradient),) = plan[f"vectors/{LEVEL}_seed11/gradient"]
    assert [int(name.split("-")[0]) for name in gradient["checkpoint_names"]] == [10, 12, 14, 16, 18, 20]
    steps, ways, scored = dict.fromkeys(VARIANTS, 0), [], set()
    for name, commands in plan.items():
        for module, flags in commands if name.startswith(LEVEL) else ():
            if "do_train" in flags and "equal_flops" not in flags:
                steps[name.split("/")[1]] += flags["total_steps"]
                ways.append({flag: value for flag, value in flags.items() if flag != "output_dir"})
                assert flags["learning_rate"] == 0.01
            elif module == "routing_moe.cli.train" and "predict_split" in flags:
                scored.add(name.split("/")[1])
    assert steps.pop("dense_total_flops") == 7
    assert {steps.pop(name) for name in WITH_VECTORS} == {13}
    assert set(steps.values()) == {33}
    assert len(ways) == len(VARIANTS) + 1  # two_stage has two trainings
    assert not [way for way in ways if ways.count(way) > 1]
    assert scored == {"dense", "softmax", "clusters", "composed", "oracle"}
    (way,) = [way for way in ways if way.get("task_routes", "").endswith("task_routes.json")]
    assert Path(way["task_routes"]).read_text() == '{"a": 0, "b": 1}'


def test_only_what_a_variant_needs_is_planned(tmp_path):
    assert set(planned(study_of(tmp_path, variants=("oracle",)))) == {
        f"gyms/{LEVEL}_seed11", f"gyms/{LEVEL}_seed11/width16", f"{LEVEL}/oracle/seed11"
    }  # fmt: skip
    flops = list(planned(study_of(tmp_path, variants=("dense_total_flops",))))
    run = f"{LEVEL}/dense_total_flops/seed11"
    assert flops[-3:] == [f"{LEVEL}/dense/seed11", f"{run}.steps_of_dense", run]


def test_the_rate_is_the_best_among_finished_tuning_runs(tmp_path):
    study = study_of(tmp_path, rates=(0.02, 0.01, 0.004), variants=("dense_no_names", "dense", "balanced"))
    runs = {run.name: run for run in tuning_runs(study)}
    assert list(runs) == [
        f"tuning/{LEVEL}/{name}/lr{rate}" for name in ("dense", "softmax") for rate in study.rates
    ]
    with pytest.raises(RuntimeError, match="no tuning run of dense is finished"):
        chosen_rate(study, "dense_no_names")
    for rate, score in (
        (0.004, 0.4),
        (0.01, 0.4),
        (0.02, 0.9),
    ):  # of equal ones the lower; 0.02 is not finished
        folder = runs[f"tuning/{LEVEL}/dense/lr{rate}"].folder
        folder.mkdir(parents=True)
        (folder / "losses.csv").write_text(f",steps,dev_performance\n0,5,0.05\n1,10,{score}\n")
        if rate < 0.02:
            (folder / "finished").touch()
    assert chosen_rate(study, "dense") == chosen_rate(study, "dense_no_names") == 0.004
    assert chosen_rate(study_of(tmp_path), "dense") == 0.01  # a single rate is used as it is
    of_dense = tuning_runs(study_of(tmp_path, rates=(0.01, 0.02), variants=("dense_total_flops",)))[0]
    assert of_dense.name == f"tuning/{LEVEL}/dense/lr0.01"
    assert tuning_gym(study_of(tmp_path, skills=36)).level == LEVEL


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--variants dens", "--variants holds 'dens'; choose from "),
        ("--seeds 101", "--seeds holds 101, the seed that rates are tuned on"),
        ("--seeds 11 11", "--seeds has a value more than once"),
        ("--skills 5", "--skills is 5; it must be a square from 4 to 64"),
        ("--conflicts 1.5", "--conflicts holds 1.5; it must be from 0 to 1"),
        ("--dense_steps 25", "--dense_steps is 25; it must be a multiple of 10 below --total_steps (33)"),
        ("--total_steps 34 --rates 0.02", "--total_steps is 34, but in "),
    ],
)
def test_wrong_settings_are_errors(tmp_path, capsys, flags, message):
    study_of(tmp_path).save_settings()
    given = ["--total_steps", "33", "--dense_steps", "20", "--rates", "0.01"]
    assert conflict.main([*given, *flags.split(), "--output_dir", str(tmp_path)]) == 2
    assert f"error: {message}" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["study.json"]


@pytest.mark.slow
def test_a_whole_study_trains_and_compares(tmp_path, monkeypatch, capfd):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {" ".join(fork_server.client())} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    flags = "--conflicts 1 --skills 4 --tasks_per_skill 1 --seeds 11 --total_steps 12 --dense_steps 10"
    flags += " --rates 0.003 --variants dense_total_flops composed --unseen composed --jobs 2 --output_dir"
    study = [*flags.split(), str(tmp_path / "out"), "--gym_flags=--unseen_tasks 2 --test_rows 8 --dev_rows 4"]
    assert conflict.main(study) == 0
    folder = tmp_path / "out/conflict1_4skills"
    steps = int((folder / "dense_total_flops/seed11.steps_of_dense").read_text())
    assert 1 <= steps < 12
    overview = pd.read_csv(folder / "overview.csv").set_index("variant")
    assert overview["steps"].to_dict() == {"dense": 12, "dense_total_flops": steps, "composed": 12}
    assert overview["unseen"].notna().to_dict() == dict.fromkeys(overview.index, False) | {"composed": True}
    assert (folder / "comparison.md").is_file()
    assert "learning rate of dense: 0.003\n" in capfd.readouterr().out
    assert conflict.main(study) == 0  # only the tables are written again
    assert "started  " not in capfd.readouterr().out
