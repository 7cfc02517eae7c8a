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


def code_of(name: str) -> str:
    """Returns a script without its comments."""
    return re.sub(r"^\s*#.*", "", (FOLDER / name).read_text(), flags=re.MULTILINE)


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
    (scripts.folder / "bin/nvidia-smi").write_text(f'#!/bin/sh\nprintf "${{FOUND:-{GPUS}}}"\n')
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
    _, (call,), output = scripts.run("train_multitask_bart.sh", **own)
    assert "learning rate 1e-5; on CPU" in output  # no router
    assert "--taskvecs" not in call
    assert output.startswith(f"model {scripts.bart}; gym")  # no task vectors


def test_flags_win_over_variables_also_in_what_a_script_says(scripts):
    given = "--total_steps 5 --eval_period=2 --learning_rate 3e-4 --router_lr 2e-2 --task_model_lr 3e-2"
    places = "--model own --train_dir gym --custom_tasks_splits s.json --taskvecs v --output_dir models/zzz"
    flags = f"{given} {places}"
    _, _, output = scripts.run("train_routing_bart.sh", *flags.split(), SPLIT="other", TOTAL_STEPS="9")
    assert output.splitlines() == [
        "model own, task vectors v; gym gym, split s.json",
        "5 steps, evaluation every 2, learning rate 3e-4, router 2e-2, task vectors 3e-2; "
        f"on CPU, precision no; output in models/zzz; flags: {flags}",
    ]
    flags = "--total_steps 3 --eval_period 1 --learning_rate_list 1e-3 2e-3 --bsz_list=4"
    _, _, output = scripts.run("finetune_a_list_of_tasks.sh", "test", "None", "x", *flags.split())
    assert "\n3 steps, evaluation every 1, learning rates 1e-3 2e-3, batch sizes 4; on CPU" in output
    script = "run_two_stage.sh"
    _, _, output = scripts.run(
        script, "--learning_rate", "3e-4", STAGE1_FLAGS="--total_steps 5", TOTAL_STEPS="7"
    )
    assert output.splitlines()[1].startswith(
        "stage 1: 5 steps, learning rate 1e-5; stage 2: 14 steps, learning rate 3e-4; on CPU"
    )


ARGUMENTS = {
    "task_vectors.sh": ["fisher"],
    "finetune_a_list_of_tasks.sh": ["test", "None"],
    "reproduce_paper.sh": ["--dry_run"],
    "real_gym_study.sh": ["--dry_run"],
    "understand.sh": ["out"],
}
EMBEDDED = "model data/conflict_gym_bart/width16; gym data/conflict_gym, split data/conflict_gym/split.json"
OTHERS = {  # scripts that do not train MODEL on DATA_DIR
    "build_a_checkpoint2.sh": "routes of out/stage1, experts from own/model; output in out/init",
    "build_gym.sh": "CrossFit's gym from public data sets, which are downloaded; output in out",
    "compare_conflict.sh": "BARTs of width 16 and 32, variants: dense; conflicts: 0 0.5 1, 16 skills; "
    "seeds: 1; gym out/gyms/*/gym, split out/gyms/*/gym/split.json",
    "english_bart.sh": "a BART from the encoder of the package; on CPU; output in out",
    "inspect_task_vectors.sh": "task vectors v w; gym {gym}, split {gym}/split.json; output in out",
    "quickstart.sh": EMBEDDED,
    "reduce_task_vectors.sh": "task vectors data/task_vectors/fisher, 2 principal components of the train "
    "tasks of {gym}/split.json; output in out; flags: --transform log",
    "understand.sh": "routes, correlations and ablation (--features all) of the experts of out; on CPU; "
    "output in out/analysis",
}


@pytest.mark.parametrize("script", sorted(name for name in RUN if name.endswith(".sh")))
def test_every_script_says_first_what_it_will_do(scripts, script):
    own = dict(MODEL="own/model", VARIANTS="multitask", SEEDS="1", KINDS="random", DIM="2", OUTPUT_DIR="out")
    own |= dict(TASKVECS_DIRS="v w")
    if script == "compare_conflict.sh":
        own["VARIANTS"] = "dense"
    write_config(scripts.folder / "out/init")
    _, _, output = scripts.run(script, *ARGUMENTS.get(script, []), failing="nothing", **own)
    first, second, *_ = [*output.splitlines(), ""]
    if script in OTHERS:
        assert first == OTHERS[script].format(gym=scripts.gym)
    else:
        assert "own/model" in first
        assert f"gym {scripts.gym}, split " in first
    if "; output in " not in first:
        assert re.search(r"steps.* rates? |task\(s\) at a time", second)
        assert re.search("; on CPU(, precision no)?; output in ", second)


def test_the_second_stage_reads_the_flags_the_first_stage_their_variables(scripts):
    """A model, a gym or a folder for the last stage alone is refused before the first is trained."""
    for script in (
        "run_two_stage.sh",
        "run_fisher_two_stage.sh",
        "run_gradient_routing.sh",
        "compare_routings.sh",
    ):
        code, calls, output = scripts.run(script, "--seed", "1", "--model", "x")
        assert (code, calls) == (2, [])
        assert output == (
            "error: --model: flags reach only a part of the trainings; set MODEL, which all of them read\n"
        )
    assert "set OUTPUT_DIR" in scripts.run("run_two_stage.sh", "--output_dir=x")[2]


@pytest.mark.parametrize(
    ("given", "device"),
    [
        ({}, "3 GPUs (NVIDIA A100), precision auto"),
        (dict(CUDA_VISIBLE_DEVICES="2"), "1 GPU (NVIDIA T4), precision auto"),
        (dict(CUDA_VISIBLE_DEVICES="GPU-c,GPU-a"), "2 GPUs (NVIDIA T4), precision auto"),
        (dict(CUDA_VISIBLE_DEVICES=""), "CPU"),
        (dict(CUDA_VISIBLE_DEVICES="-1"), "CPU"),
        *((dict(ACCELERATE_USE_CPU=value), "CPU") for value in ("1", "true", "TRUE", "Yes", "on", "y", "T")),
        (dict(ACCELERATE_USE_CPU="1", MIXED_PRECISION="bf16"), "CPU, precision bf16"),
        (dict(ACCELERATE_USE_CPU="off", CUDA_VISIBLE_DEVICES="0"), "1 GPU (NVIDIA A100), precision auto"),
        (dict(FOUND="No devices found.", CUDA_VISIBLE_DEVICES="0"), "CPU"),
    ],
)
def test_the_device_is_the_first_visible_gpu(on_gpus, given, device):
    scripts, machine = on_gpus
    command = "source example_scripts/setup.sh; DATA_DIR=gym; announce a b c; echo ${precision[@]+gpu}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command], cwd=scripts.folder, env=machine | given,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[1:] == [f"b; on {device}; output in c", "gpu" if "," in device else ""]


def test_a_driver_that_hangs_is_not_waited_for(on_gpus):
    scripts, machine = on_gpus
    (scripts.folder / "bin/timeout").write_text("#!/bin/sh\necho $1 $2 $3 >limit\n")
    (scripts.folder / "bin/timeout").chmod(0o755)
    scripts.run("train_routing_bart.sh", **machine)
    assert (scripts.folder / "limit").read_text() == "20 nvidia-smi -L\n"


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


@pytest.mark.parametrize("after", ["set -aeuo", "source "])
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


CALLS = re.compile(r"bash \"?example_scripts/|/finetuning\.sh")
CALLING = {name for name in RUN if CALLS.search(code_of(name))} - {"english_bart.sh"}  # it prints such a line


def test_scripts_that_call_others_pass_on_what_is_written_below_their_first_line():
    assert len(CALLING) >= 17
    for name in CALLING:
        assert re.findall(r"^set .*", code_of(name), flags=re.MULTILINE)[:2] == [
            "set -aeuo pipefail",
            "set +a",
        ]


@pytest.mark.parametrize(
    "script",
    [
        *("run_two_stage.sh", "run_fisher_two_stage.sh", "run_gradient_routing.sh", "compare_routings.sh"),
        *("build_a_checkpoint2.sh", "run_merged_fisher128freeze_1e-5.sh", "compare_task_vectors.sh"),
    ],
)
def test_variables_written_into_a_script_reach_the_scripts_that_it_calls(scripts, script):
    own = (
        f"DATA_DIR=mine LEARNING_RATE=3e-5 MODEL={TINY} OUTPUT_DIR=out SPLIT=s TOTAL_STEPS=70 DENSE_STEPS=70"
    )
    edited(scripts, script, "set -a", f"{own} VARIANTS=multitask SEEDS=1 KINDS=random")
    code, calls, output = scripts.run(script, finishes=True, **NOTHING)
    assert code == 0, output
    assert "70 " in output.splitlines()[1] or script == "build_a_checkpoint2.sh"
    trained = commands(calls, "--do_train")
    assert trained
    for call in trained:
        assert (call["--train_dir"], call["--learning_rate"]) == ("mine", "3e-5")
        assert (call["--custom_tasks_splits"], call["--total_steps"]) == ("s", "70")
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
