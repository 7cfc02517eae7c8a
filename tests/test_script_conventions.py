"""What scripts have in common: modes, what they print first, variables written into them, GPUs of jobs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from recording_scripts import Scripts
from test_script_defaults import NOTHING, TINY, commands, write_config, write_embedded_gym
from tiny_runs import ROOT

FOLDER = ROOT / "example_scripts"
SOURCED = {path.name for path in FOLDER.glob("*.sh") if path.read_text().startswith("# Sourced by ")}
RUN = {path.name for path in FOLDER.glob("*.sh")} - SOURCED | {
    "collect_results.py",
    "compute_arg.py",
    "create_gif.py",
}


def test_scripts_that_people_run_are_executable_and_sourced_ones_are_not():
    assert len(SOURCED) >= 9
    text = "".join(path.read_text() for path in FOLDER.glob("*.sh"))
    assert {name for name in SOURCED if not re.search(rf"source .*{name}", text)} == set()
    for path in FOLDER.glob("*.*"):
        assert os.access(path, os.X_OK) == (path.name in RUN), path
        assert path.read_text().startswith("#!/usr/bin/env ") == (path.name in RUN), path


# ---- what they print first

GPUS = (
    "GPU 0: NVIDIA A100 (UUID: GPU-a)\\nGPU 1: NVIDIA A100 (UUID: GPU-b)\\nGPU 2: NVIDIA T4 (UUID: GPU-c)\\n"
)


@pytest.fixture
def on_gpus(scripts: Scripts):
    """The scripts, and a PATH on which nvidia-smi lists three GPUs."""
    (scripts.folder / "bin").mkdir()
    (scripts.folder / "bin/nvidia-smi").write_text(f"#!/bin/sh\nprintf '{GPUS}'\n")
    (scripts.folder / "bin/nvidia-smi").chmod(0o755)
    return scripts, {"PATH": f"{scripts.folder}/bin:{os.environ['PATH']}", "MIXED_PRECISION": ""}


def test_a_training_says_first_what_it_does(scripts):
    own = dict(SPLIT="s.json", TASKVECS="v", OUTPUT_DIR="out", TOTAL_STEPS="7")
    _, _, output = scripts.run("train_routing_bart.sh", "--seed", "3", **own)
    assert output.splitlines() == [
        f"model {scripts.bart}, task vectors v; gym {scripts.gym}, split s.json",
        "7 steps, evaluation every 750, learning rate 1e-5, router 1e-3, task vectors 1e-2; "
        "on CPU, precision no; output in out; flags: --seed 3",
    ]
    _, _, output = scripts.run("train_multitask_bart.sh", **own)
    assert "learning rate 1e-5; on CPU" in output  # no router


ARGUMENTS = {
    "task_vectors.sh": ["fisher"],
    "finetune_a_list_of_tasks.sh": ["test", "None"],
    "run_merged_fisher128freeze_1e-5.sh": [],
    "reproduce_paper.sh": ["--dry_run"],
}
TRAINING = [
    *("train_routing_bart.sh", "train_avg_routing.sh", "run_two_stage.sh", "run_fisher_two_stage.sh"),
    *("run_gradient_routing.sh", "compare_routings.sh", "compare_task_vectors.sh", *ARGUMENTS),
]


@pytest.mark.parametrize("script", TRAINING)
def test_every_script_says_model_gym_and_device_before_it_trains(scripts, script):
    """The fake Python fails, so that what is printed was printed before."""
    own = dict(MODEL="own/model", VARIANTS="multitask", SEEDS="1", KINDS="random", DIM="2", OUTPUT_DIR="out")
    write_config(scripts.folder / "out/init")
    _, _, output = scripts.run(script, *ARGUMENTS.get(script, []), failing="nothing", **own)
    first, second = output.splitlines()[:2]
    assert "own/model" in first
    assert f"gym {scripts.gym}, split " in first
    assert "; on CPU, precision no; output in " in second


@pytest.mark.parametrize(
    ("given", "device"),
    [
        ({}, "3 GPUs (NVIDIA A100), precision auto"),
        (dict(CUDA_VISIBLE_DEVICES="2"), "1 GPU (NVIDIA T4), precision auto"),
        (dict(CUDA_VISIBLE_DEVICES="GPU-c,GPU-a"), "2 GPUs (NVIDIA T4), precision auto"),
        (dict(CUDA_VISIBLE_DEVICES=""), "CPU, precision auto"),
        (dict(CUDA_VISIBLE_DEVICES="-1"), "CPU, precision auto"),
        (dict(ACCELERATE_USE_CPU="true", MIXED_PRECISION="no"), "CPU, precision no"),
    ],
)
def test_the_device_is_the_first_visible_gpu(on_gpus, given, device):
    scripts, machine = on_gpus
    _, _, output = scripts.run("train_routing_bart.sh", **machine | given)
    assert f"; on {device}; output in models/routing_bart" in output


# ---- variables and flags written into a script


def edited(scripts: Scripts, name: str, after: str, line: str) -> None:
    """Writes a line into a script, below the last line that starts with `after`."""
    path = scripts.folder / "example_scripts" / name
    lines = path.read_text().splitlines()
    place = max(i for i, text in enumerate(lines) if text.startswith(after))
    path.write_text("\n".join([*lines[: place + 1], line, *lines[place + 1 :]]) + "\n")


@pytest.mark.parametrize(
    ("script", "after"),
    [
        *(("train_routing_bart.sh", after) for after in ("set -euo", "OUTPUT_DIR=", "source ")),
        *(("train_avg_routing.sh", after) for after in ("set -euo", "OUTPUT_DIR=")),
    ],
)
def test_variables_written_into_a_training_script_count(scripts, script, after):
    edited(scripts, script, after, "DATA_DIR=mine SPLIT=mine.json LEARNING_RATE=3e-5")
    code, calls, output = scripts.run(script, **NOTHING)
    assert code == 0, output
    (trained,) = commands(calls, "cli.train")
    assert (trained["--train_dir"], trained["--custom_tasks_splits"]) == ("mine", "mine.json")
    assert (trained["--learning_rate"], trained["--model"]) == ("3e-5", "facebook/bart-base")


def test_variables_written_into_the_training_script_count_for_its_baselines(scripts):
    edited(scripts, "train_routing_bart.sh", "DATA_DIR=", "DATA_DIR=mine")
    (trained,) = commands(scripts.run("train_random_routing.sh", **NOTHING)[1], "cli.train")
    assert (trained["--train_dir"], trained["--output_dir"]) == ("mine", "models/random_routing")


@pytest.mark.parametrize("after", ["set -euo", "source "])
def test_variables_written_into_a_fine_tuning_script_count(scripts, after):
    line = (
        f"DATA_DIR={scripts.gym} LEARNING_RATE_LIST=3e-5 BSZ_LIST=2 CHECKPOINT=run TASKS=test IDENTIFIER=mine"
    )
    edited(scripts, "finetune_a_list_of_tasks_moe.sh", after, line)
    code, calls, output = scripts.run("finetune_a_list_of_tasks_moe.sh", **NOTHING)
    assert code == 0, output
    (tuned,) = commands(calls, "cli.finetune")
    assert (tuned["--task_dir"], tuned["--init_dir"]) == (f"{scripts.gym}/plural", "run")
    assert (tuned["--learning_rate_list"], tuned["--bsz_list"]) == ("3e-5", "2")
    assert tuned["--output_dir"] == "models/mine/singletask-plural"


@pytest.mark.parametrize(
    "script",
    [
        *("run_two_stage.sh", "run_fisher_two_stage.sh", "run_gradient_routing.sh"),
        *("build_a_checkpoint2.sh", "run_merged_fisher128freeze_1e-5.sh"),
    ],
)
def test_variables_written_into_a_script_reach_the_scripts_that_it_calls(scripts, script):
    edited(scripts, script, "set -a", f"DATA_DIR=mine LEARNING_RATE=3e-5 MODEL={TINY} OUTPUT_DIR=out SPLIT=s")
    code, calls, output = scripts.run(script, finishes=True, **NOTHING)
    assert code == 0, output
    trained = commands(calls, "--do_train")
    assert trained
    for call in trained:
        assert (call["--train_dir"], call["--learning_rate"]) == ("mine", "3e-5")
        assert call["--custom_tasks_splits"] == "s"
        assert call["--output_dir"].startswith("out")


@pytest.mark.parametrize(
    "flag", ["--avg_routing", "--random_routing", "--num_experts 1", "--task_routes x.json"]
)
def test_flags_of_routes_written_into_the_script_are_those_of_the_command_line(scripts, flag):
    _, expected, _ = scripts.run("train_routing_bart.sh", *flag.split())
    path = scripts.folder / "example_scripts/train_routing_bart.sh"
    text = path.read_text()
    line = 'train --initialize_from_vanilla "$@"'
    assert line in text
    for changed in (
        f'train --initialize_from_vanilla {flag} "$@"',
        f'train {flag} --initialize_from_vanilla "$@"',
    ):
        path.write_text(text.replace(line, changed))
        (call,) = scripts.run("train_routing_bart.sh")[1]
        assert sorted(call.split()) == sorted(expected[0].split())
        assert "--router_lr" not in call


# ---- jobs side by side

JOBS = """
source example_scripts/setup.sh
source example_scripts/jobs.sh
job() {
    sleep 0.1
    echo "$1 on ${CUDA_VISIBLE_DEVICES-all}${ROUTING_MOE_WORKERS_OF_GPU:+ with $ROUTING_MOE_WORKERS_OF_GPU}"
}
export -f job
run_jobs job -- a b c d
"""


@pytest.mark.parametrize(
    ("jobs", "given", "expected"),
    [
        (1, {}, {"0,1,2 with 1"}),
        (2, {}, {"0,2 with 1", "1 with 1"}),
        (3, {}, {"0 with 1", "1 with 1", "2 with 1"}),
        (4, {}, {"0 with 2", "1 with 1", "2 with 1"}),
        (2, dict(CUDA_VISIBLE_DEVICES="2,GPU-a"), {"2 with 1", "GPU-a with 1"}),
        (2, dict(CUDA_VISIBLE_DEVICES=""), {""}),
    ],
)
def test_jobs_divide_the_visible_gpus_and_read_how_many_share_theirs(on_gpus, jobs, given, expected):
    scripts, machine = on_gpus
    assert gpus_of_jobs(scripts, machine | given, jobs) == expected


def test_without_gpus_jobs_see_what_the_script_sees(scripts):
    path = {"PATH": os.environ["PATH"]}
    assert gpus_of_jobs(scripts, path, 2) == {"all"}
    assert gpus_of_jobs(scripts, path | dict(CUDA_VISIBLE_DEVICES="1"), 2) == {"1"}


def gpus_of_jobs(scripts: Scripts, environment: dict[str, str], jobs: int) -> set[str]:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", JOBS],
        cwd=scripts.folder,
        env=environment | {"JOBS": str(jobs), "PYTHON": "python"},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = dict(line.split(" on ") for line in done.stdout.splitlines())
    assert sorted(lines) == ["a", "b", "c", "d"]
    return set(lines.values())


def test_the_runs_of_a_comparison_have_a_gpu_each(on_gpus):
    scripts, machine = on_gpus
    python = scripts.folder / "see"
    python.write_text(f"#!/bin/sh\necho $CUDA_VISIBLE_DEVICES >>{scripts.folder}/seen\nsleep 0.1\n")
    python.chmod(0o755)
    own = dict(VARIANTS="multitask average", SEEDS="1", JOBS="3", OUTPUT_DIR="out", PYTHON=str(python))
    scripts.run("compare_routings.sh", **machine | own)
    assert sorted((scripts.folder / "seen").read_text().split()) == ["0", "1"]


# ---- Python scripts


@pytest.fixture
def bare_path(tmp_path) -> str:
    """A PATH whose python3 has no packages."""
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare/python3").write_text(f'#!/bin/sh\nexec {Path(sys.executable).resolve()} -S "$@"\n')
    (tmp_path / "bare/python3").chmod(0o755)
    return f"{tmp_path}/bare:/usr/bin:/bin"


@pytest.mark.parametrize("name", ["collect_results", "compute_arg", "create_gif"])
def test_python_scripts_run_by_themselves_with_the_packages_of_the_environment(scripts, bare_path, name):
    def call():
        return subprocess.run(
            [str(scripts.folder / f"example_scripts/{name}.py"), "--a", "b c"],
            env={"PATH": bare_path}, capture_output=True, text=True, check=False,
        )  # fmt: skip

    done = call()
    assert done.returncode == 1
    assert done.stderr.startswith("error: No module named '")
    assert done.stderr.count("\n") == 1
    python = scripts.folder / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
    python.chmod(0o755)
    assert call().stdout == f"{scripts.folder}/example_scripts/{name}.py|--a|b c|"


def test_fine_tuning_starts_as_the_published_readme_writes_it(scripts):
    write_embedded_gym(scripts)
    scripts.run("finetune_a_list_of_tasks.sh")  # writes the fake Python
    (scripts.folder / "calls").write_text("")
    done = subprocess.run(
        ["./example_scripts/finetune_a_list_of_tasks.sh", "a", "None", "mine"], cwd=scripts.folder,
        env={"PATH": os.environ["PATH"], "PYTHON": f"{scripts.folder}/python"}, check=True,
    )  # fmt: skip
    assert done.returncode == 0
    assert "--output_dir models/mine/singletask-a " in (scripts.folder / "calls").read_text()
