"""Task vectors, fine-tuning, an English BART and explanations as studies; the shell scripts."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from recorded_commands import value_of, write, write_gym
from tiny_runs import ROOT

from dataloader.errors import InputError
from routing_moe.studies import assembling, finetuning, understand, vectors
from routing_moe.studies.recipes import tiny_bart


@pytest.fixture
def gym(tmp_path):
    return write_gym(tmp_path)


# ---- task vectors


@pytest.mark.parametrize("method", vectors.METHODS)
def test_each_method_uses_the_given_gym_and_model_else_the_embedded_one(recorder, gym, method):
    assert vectors.main([method, "--train_dir", gym, "--model", "m", "--tasks", "train"]) == 0
    (command,) = recorder.commands
    assert command[0] == method
    assert value_of(command, "--tasks") == "train"
    reads_model = method not in ("random", "descriptions")
    assert value_of(command, "--model") == ("m" if reads_model else None)
    assert value_of(command, "--train_dir") == gym
    assert vectors.main([method]) == 0
    assert recorder.names()[1:] == ["generate", method]
    assert value_of(recorder.commands[-1], "--model") == (str(tiny_bart()) if reads_model else None)


def test_vectors_are_reduced_with_the_split_of_the_gym(recorder, gym):
    assert vectors.main(["reduce", "--taskvecs", "v", "--train_dir", gym, "--dim", "3"]) == 0
    (command,) = recorder.commands
    assert value_of(command, "--custom_tasks_splits") == "gym/split.json"
    assert value_of(command, "--transform") == "log"
    assert vectors.main(["reduce"]) == 0
    assert recorder.names()[1:] == ["generate", "fisher", "reduce"]


def test_vectors_are_inspected_with_the_skills_of_the_embedded_gym(recorder, gym):
    assert vectors.main(["inspect", "--taskvecs_dirs", "one", "two", "--permutations", "9"]) == 0
    assert recorder.names() == ["generate", "inspect"]
    command = recorder.commands[-1]
    assert command[1:4] == ["--taskvecs", "one", "two"]
    assert value_of(command, "--labels") == "data/skill_gym/skills.csv"
    assert command[-2:] == ["--permutations", "9"]
    assert vectors.main(["inspect", "--taskvecs_dirs", "one", "--train_dir", gym]) == 0
    assert "--labels" not in recorder.commands[-1]


def test_an_unknown_method_or_a_lack_of_vectors_is_an_error(recorder, capsys):
    with pytest.raises(SystemExit):
        vectors.main(["tex"])
    assert "did you mean 'text'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        finetuning.main(["--tasks", "test"])
    assert "unknown START '--tasks'" in capsys.readouterr().err
    assert vectors.main(["inspect"]) == 2
    assert "no folder in data/task_vectors has a task_vecs.npy" in capsys.readouterr().err


# ---- fine-tuning


@pytest.fixture
def any_start(monkeypatch):
    monkeypatch.setattr(finetuning, "check_start", lambda settings: None)


@pytest.mark.parametrize("start", finetuning.STARTS)
def test_fine_tuning_starts_from_its_checkpoint_with_the_published_grid(recorder, gym, any_start, start):
    assert finetuning.main([start, "d c", "some/run", "mine", "--train_dir", gym, "--seed", "3"]) == 0
    assert recorder.names() == ["finetune", "finetune", "collect_results"]
    given = recorder.settings(0)
    expected = dict(learning_rate_list=[1e-5, 2e-5, 5e-5], bsz_list=[2, 4, 8], total_steps=1000, seed=3)
    expected |= dict(task_dir="gym/d", output_dir="models/mine/singletask-d")
    assert expected.items() <= given.items()
    assert given.get("init_dir" if start != "bart" else "checkpoint") == "some/run"
    assert recorder.commands[2][1:] == [
        *("--logs_dir", "models/mine", "--tasks", "d", "c", "--output_file", "models/mine/summary.csv")
    ]


def test_logits_have_learning_rates_of_their_own_unless_some_are_given(recorder, gym, any_start):
    flags = ["moe", "c", "some/run", "mine", "--train_dir", gym, "--route_training", "logits"]
    assert finetuning.main(flags) == 0
    assert recorder.settings(0)["learning_rate_list"] == [0.03, 0.1, 0.3]
    assert finetuning.main([*flags, "--learning_rate_list", "0.5"]) == 0
    assert recorder.settings(2)["learning_rate_list"] == [0.5]


def test_a_task_that_fails_does_not_stop_the_others_and_sets_the_exit_code(recorder, gym, any_start, capsys):
    recorder.failing = "singletask-c"
    assert finetuning.main(["moe", "test", "some/run", "mine", "--train_dir", gym]) == 3
    assert recorder.names() == ["finetune", "finetune", "collect_results"]
    assert "fine-tuning on c ended with exit code 3" in capsys.readouterr().err


def test_a_start_that_is_not_there_is_reported_once(recorder, gym, capsys):
    assert finetuning.main(["moe", "test", "no-run", "mine", "--train_dir", gym]) == 2
    assert capsys.readouterr().err.count("error:") == 1
    assert recorder.commands == []
    assert finetuning.main(["moe", "test e", "no-run", "mine", "--train_dir", gym]) == 2
    assert "no task 'e' in gym" in capsys.readouterr().err
    assert finetuning.main(["moe", "", "no-run", "mine", "--train_dir", gym]) == 2
    assert "--tasks names no task" in capsys.readouterr().err


def test_the_default_mixture_is_trained_first_only_if_nothing_is_given(recorder, gym, any_start):
    write_gym(Path("data"), "skill_gym")
    finetuning.main(["moe_avg"])
    assert recorder.names()[:2] == ["generate", "train"]
    assert recorder.settings(1)["avg_routing"]
    recorder.commands.clear()
    assert finetuning.main(["moe_avg", "--train_dir", gym]) == 0
    assert "train" not in recorder.names()


def test_a_mixture_of_other_tasks_is_not_scored(tmp_path):
    made_of = {"made_of": {"base": {}, "experts/a": {}, "experts/b": {}}}
    write(tmp_path / "assembled.json", json.dumps(made_of))
    assembling.check_experts(tmp_path, ["b", "a"])
    with pytest.raises(InputError, match=r"--tasks are a c, but .* has experts of a b"):
        assembling.check_experts(tmp_path, ["a", "c"])


# ---- understanding


def test_runs_are_analysed_alone_and_together(recorder, capsys):
    (recorder_run := write("one/stage1/run.json").parents[1]).mkdir(exist_ok=True)
    assert understand.main([str(recorder_run), "two", "--output_dir", "all"]) == 0
    assert recorder.names() == ["inspect_routes", "create_gif", "correlate_routes"] * 2 + [
        *("inspect_routes", "correlate_routes", "report")
    ]
    assert value_of(recorder.commands[0], "--before") == "one/stage1"
    assert "note: two is analysed without ablation: it has no run.json" in capsys.readouterr().err
    write("one/run.json")
    write("one/best/model.safetensors")
    recorder.failing = "cli.ablate"  # exit code 3: not possible
    assert understand.main(["one"]) == 0
    assert recorder.names()[-2:] == ["ablate", "report"]


# ---- the scripts


SCRIPTS = {path.name for path in (ROOT / "example_scripts").glob("*.sh")} - {"setup.sh", "quickstart.sh"}


@pytest.mark.parametrize(
    "script",
    sorted(
        path.name
        for path in (ROOT / "example_scripts").glob("*.sh")
        if path.name not in ("setup.sh", "quickstart.sh")
    ),
)
def test_every_script_starts_one_module_with_the_flags_of_the_command_line(script, tmp_path):
    for name in ("example_scripts", "routing_moe", "dataloader", "task"):
        (tmp_path / name).symlink_to(ROOT / name)
    python = write(tmp_path / "python", f'#!/bin/sh\necho "$@" >>{tmp_path}/calls\n')
    python.chmod(0o755)
    path = tmp_path / "scripts"
    path.mkdir()
    for each in (ROOT / "example_scripts").glob("*.sh"):
        (path / each.name).write_bytes(each.read_bytes())
    if script == "quickstart.sh":  # with an environment that is installed
        (tmp_path / ".venv/bin").mkdir(parents=True)
        (tmp_path / ".venv/bin/python").symlink_to(python)
        for name in ("requirements.txt", "setup.py"):
            (tmp_path / name).write_bytes((ROOT / name).read_bytes())
        stamp = "cat requirements.txt setup.py | cksum >.venv/installed"
        subprocess.run(stamp, shell=True, cwd=tmp_path, check=True)
    subprocess.run(
        ["bash", path / script, "--seed", "3"], env={"PATH": "/usr/bin:/bin", "PYTHON": python}, check=True
    )
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[-1].startswith("-m ")
    assert calls[-1].endswith("--seed 3")
    assert len((ROOT / "example_scripts" / script).read_text().splitlines()) <= 12
    assert (ROOT / "example_scripts" / script).stat().st_mode & 0o100


@pytest.fixture
def bare_path(tmp_path) -> str:
    """A PATH whose python3 has no packages."""
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare/python3").write_text(f'#!/bin/sh\nexec {Path(sys.executable).resolve()} -S "$@"\n')
    (tmp_path / "bare/python3").chmod(0o755)
    return f"{tmp_path}/bare:/usr/bin:/bin"


@pytest.mark.parametrize("name", ["collect_results", "compute_arg", "create_gif"])
def test_python_scripts_run_by_themselves_with_the_packages_of_the_environment(bare_path, tmp_path, name):
    folder = tmp_path / "copy"
    shutil.copytree(ROOT / "example_scripts", folder / "example_scripts")

    def call():
        return subprocess.run(
            [str(folder / f"example_scripts/{name}.py"), "--a", "b c"],
            env={"PATH": bare_path}, capture_output=True, text=True, check=False,
        )  # fmt: skip

    done = call()
    assert done.returncode == 1
    assert done.stderr.startswith("error: No module named '")
    assert done.stderr.count("\n") == 1
    python = folder / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
    python.chmod(0o755)
    assert call().stdout == f"{folder}/example_scripts/{name}.py|--a|b c|"
