"""The scripts of example_scripts/: their commands have flags that exist, and whole scripts run."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from argparse import ArgumentParser
from collections import Counter
from pathlib import Path

import fork_server
import pandas as pd
import pytest
from tiny_runs import ROOT, write_gym

from routing_moe.cli import entry
from routing_moe.config import flags
from routing_moe.io.run_folder import load_run_settings

SCRIPTS = sorted(path.name for path in ROOT.glob("example_scripts/*.sh") if path.name != "setup.sh")
GYM = "--train_dir gym"
WORDS = {  # what follows a script, where that is not only a gym
    "assemble_experts.sh": f'"colour count" mine {GYM}',
    "build_a_checkpoint2.sh": "--routes_from run",
    "build_gym.sh": "",
    "compare_conflict.sh": "",
    "quickstart.sh": "",
    "real_gym_study.sh": f"{GYM} --model bart",
    "task_vectors.sh": f"fisher {GYM}",
    "understand.sh": "run",
    **{name: f"test run mine --samples first {GYM}" for name in SCRIPTS if name.startswith("finetune")},
}
SET_BY_SETUP = {"SMALL", "SMALL_MODEL", "OMP_NUM_THREADS"}
SETTINGS = {"SEEDS": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the scripts with a small gym; its Python runs commands in forks of a server."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "example_scripts", folder / "example_scripts")
    for name in ("routing_moe", "dataloader", "task", "requirements.txt", "setup.py"):
        (folder / name).symlink_to(ROOT / name)
    write_gym(folder / "gym")
    train, test = ["swap-travel-command", "entailment-farm-qa"], ["inflection-travel-qa"]
    (folder / "few.json").write_text(json.dumps({"train": train, "dev": [], "test": test}))
    python = folder / "python"
    python.write_text(f'#!/bin/bash\nexec {shlex.join(fork_server.client())} "$@"\n')
    python.chmod(0o755)
    return folder


def call(folder: Path, line: str, check: bool = True, **variables: str) -> subprocess.CompletedProcess:
    env = {name: value for name, value in os.environ.items() if name not in ("DATA_DIR", "OUTPUT_DIR")}
    env |= {"PYTHON": str(folder / "python"), "PYTHONPATH": str(ROOT)} | SETTINGS | variables
    words = ["bash", "-c", line]
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done


def commands_of(folder: Path, line: str, **variables: str) -> list[list[str]]:
    """Returns the commands that a script prints with --dry_run, in place of scripts theirs."""
    line = line.replace(".sh", ".sh --dry_run", 1)
    found = []
    for command in call(folder, line, **variables).stdout.splitlines():
        if command.startswith("routing-moe "):
            found.append(shlex.split(command)[1:])
        elif "example_scripts/" in command and command.startswith(("bash ", "env ")):
            found += commands_of(folder, command, **variables)
    return found


class Parsed(Exception):
    """Ends a command once its flags are parsed."""


@pytest.fixture
def parse(monkeypatch):
    """parse(words): `routing-moe WORDS`, whose flags must exist, until they are parsed."""

    def parse_known_args(self, args=None, namespace=None):
        _, unknown = ArgumentParser.parse_known_args(self, args, namespace)
        assert not unknown
        raise Parsed

    def parse(words: list[str]) -> None:
        with pytest.raises(Parsed):
            entry.main(words)

    monkeypatch.setattr(flags.Parser, "parse_known_args", parse_known_args)
    return parse


@pytest.mark.parametrize("small", ["", "--small"])
@pytest.mark.parametrize("script", SCRIPTS)
def test_every_command_of_a_script_parses(script, small, copy, parse):
    words = WORDS.get(script, GYM)
    if small:
        words = words.replace(GYM, "").replace("colour count", "swap-travel-command opposite-shop-qa")
    commands = commands_of(copy, f"bash example_scripts/{script} {small} {words}")
    assert commands
    for command in commands:
        parse(command)


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
        ("quickstart.sh --output_dir x", "the quickstart has no flags"),
    ],
)
def test_wrong_words_are_one_error_before_anything_runs(line, error, copy):
    variables = {"OUTPUT_DIR": "my models"} if "space" in error else {"VARIANTS": "softmx"}
    done = call(copy, f"bash example_scripts/{line}", check=False, **variables)
    assert done.returncode == 2
    assert error in done.stderr


def test_variables_of_single_runs_do_not_change_those_of_a_study(copy):
    own = {"TASKVECS": "nowhere", "PROCESSES": "2", "OUTPUT_DIR": "models/study", "VARIANTS": "softmax"}
    call(copy, f"bash example_scripts/compare_routings.sh --small {SHORT}", **own)
    assert load_run_settings(copy / "models/study/softmax/seed1")["taskvecs"] is None


def test_the_whole_study_of_the_paper_is_listed(copy):
    commands = commands_of(copy, f"bash example_scripts/reproduce_paper.sh {GYM}")
    counts = Counter(command[0] for command in commands)
    names = ("train", "merge", "finetune", "collect-results", "vectors", "report")
    assert [counts[name] for name in names] == [26, 2, 14, 14, 6, 1]
    assert len({tuple(command) for command in commands if command[0] in ("train", "finetune", "merge")}) == 42


@pytest.mark.parametrize("script", [name for name in SCRIPTS if GYM in WORDS.get(name, GYM)])
def test_without_a_gym_one_error_names_the_flag_the_variable_and_small(script, copy):
    words = WORDS.get(script, "").replace(GYM, "")
    done = call(copy, f"bash example_scripts/{script} {words}", check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert all(name in line for name in ("--train_dir", "DATA_DIR", "--small"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_head_of_a_script_names_the_variables_that_it_reads(script):
    text = (ROOT / "example_scripts" / script).read_text()
    head = text[: text.index("source ")] if "source " in text else text
    read = set(re.findall(r"\$\{([A-Z_]+):", text)) - SET_BY_SETUP
    assert {name for name in read if name not in head} == set()


ALL_TASKS = "--debug --total_steps 2 --eval_period 2 --max_output_length 8"
SHORT = f"--custom_tasks_splits few.json {ALL_TASKS}"
GRID = "--samples first --learning_rate_list 1e-3 --bsz_list 8 --total_steps 2 --warmup_steps 0"
SCORES = "best/eval-test-performance.csv"


@pytest.mark.slow
class TestWholeScripts:
    """Scripts on the embedded gym, with few steps."""

    def test_processes_train_together(self, copy):
        line = f"bash example_scripts/train_multitask_bart.sh --small {SHORT} --output_dir models/both"
        call(copy, line, PROCESSES="2", PYTHON=sys.executable)
        assert "2 process(es)" in (copy / "models/both/log.txt").read_text()
        assert (copy / "models/both" / SCORES).is_file()

    def test_two_stages_run_once_and_a_second_call_does_nothing(self, copy):
        line = f"bash example_scripts/run_two_stage.sh --small {SHORT} --output_dir models/two"
        call(copy, line)
        run = copy / "models/two"
        written = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
        assert load_run_settings(run)["anneal_rate"] == 3
        assert (run / "stage1" / SCORES).is_file()
        assert json.loads((run / "init/merge.json").read_text())["settings"]["init_eps"] == 1e-8
        assert call(copy, line).stdout.count("is finished") == 2
        assert {path: path.stat().st_mtime_ns for path in written} == written

    def test_a_given_first_stage_is_merged_but_never_trained(self, copy):
        call(copy, f"bash example_scripts/train_routing_bart.sh --small {SHORT} --output_dir models/given")
        (scores := copy / "models/given" / SCORES).unlink()
        given = "build_a_checkpoint2.sh --routes_from models/given --output_dir models/merged"
        call(copy, f"bash example_scripts/{given}")
        merged = json.loads((copy / "models/merged/init/merge.json").read_text())
        assert merged["settings"]["model"] == "task/skill_gym/tiny_bart"
        own = "--stage1 models/given --output_dir models/kept"
        call(copy, f"bash example_scripts/run_two_stage.sh --small {SHORT} {own}")
        assert not scores.exists()

    def test_fisher_vectors_and_both_stages(self, copy):
        short = f'--vector_flags "--total_steps 2 --max_examples 8" --dim 1 {SHORT}'
        call(copy, f"bash example_scripts/run_fisher_two_stage.sh --small {short} --output_dir models/fisher")
        assert load_run_settings(copy / "models/fisher/stage1")["freeze_task_model"]
        assert (copy / "models/fisher" / SCORES).is_file()

    def test_fine_tuning_of_two_tasks_is_collected_and_compared(self, copy):
        tasks = "swap-food-command extraction-shop-qa"
        line = f'bash example_scripts/finetune_a_list_of_tasks.sh --small "{tasks}" None direct {GRID}'
        call(copy, line)
        assert pd.read_csv(copy / "models/direct/summary.csv")["task"].nunique() == 2
        scripts = "example_scripts/collect_results.py --logs_dir models/direct --output_file all.csv"
        call(copy, f'"$PYTHON" {scripts}')
        gains = "--summary1 all.csv --summary2 models/direct/summary.csv --names a b --output_file gains.csv"
        call(copy, f'"$PYTHON" example_scripts/compute_arg.py {gains}')
        assert pd.read_csv(copy / "gains_summary.csv")["arg"].tolist() == [0]

    def test_a_task_that_fails_stops_no_other_and_is_the_exit_code(self, copy):
        for file in copy.glob("data/skill_gym/swap-food-command/*_dev.tsv"):
            file.write_text(file.read_text() + "a line without an answer\n")
        tasks = "swap-food-command extraction-shop-qa"
        line = f'bash example_scripts/finetune_a_list_of_tasks.sh --small "{tasks}" None failing {GRID}'
        done = call(copy, line, check=False)
        assert done.returncode == 2
        assert done.stderr.endswith("error: fine-tuning failed on swap-food-command\n")
        assert set(pd.read_csv(copy / "models/failing/summary.csv")["task"]) == {"extraction-shop-qa"}

    def test_understanding_a_run_ablates_it_and_writes_a_report(self, copy):
        line = f"bash example_scripts/train_routing_bart.sh --small {ALL_TASKS} --output_dir models/moe"
        call(copy, line)
        moe = copy / "models/moe"
        assert pd.read_csv(moe / SCORES)["task_prefix"].nunique() == 24
        call(copy, "bash example_scripts/understand.sh models/moe --features category:reading --top 1")
        assert (moe / "analysis/report.html").is_file()
        assert (moe / "analysis/ablation/ablation.md").is_file()

    def test_comparing_on_a_conflict_gym(self, copy):
        line = "bash example_scripts/compare_conflict.sh --small --debug"
        call(copy, line, VARIANTS="dense cross_loss true_groups_shared", STEPS="12", JOBS="2")
        table = pd.read_csv(copy / "models/compare_conflict/conflict1/overview.csv")
        assert list(table["variant"]) == ["dense", "cross_loss", "true_groups_shared"]

    @pytest.mark.parametrize("kind", ["layer", "lora"])
    def test_routes_are_found_by_cross_loss_and_unseen_tasks_are_scored(self, copy, kind):
        short = "--max_input_length 16 --max_output_length 8 --num_beams 1 --total_steps 12 --debug"
        model = "--model task/skill_gym/tiny_bart --train_batch_size 4 --eval_period 6 --learning_rate 1e-3"
        folder = f"models/cross_loss_{kind}"
        line = f"bash example_scripts/run_cross_loss_routing.sh {GYM} {model} {short} --expert_kind {kind}"
        call(copy, f"{line} --advantage -100 --output_dir {folder}")
        groups = json.loads((copy / folder / "deltas/transfer/groups.json").read_text())
        config = json.loads((copy / folder / "best/config.json").read_text())
        assert config["num_experts"] == len(set(groups.values())) > 1
        assert (copy / folder / "best/eval-test_tasks-test-performance.csv").is_file()

    def test_reproducing_the_paper_with_two_variants(self, copy):
        variables = dict(VARIANTS="multitask straight_through", JOBS="2", FEW_SHOT_FLAGS=GRID)
        call(copy, f"bash example_scripts/reproduce_paper.sh --small {SHORT}", **variables)
        tables = copy / "models/reproduce_paper/tables"
        assert (tables / "overview.csv").is_file()
        assert (tables / "gains_over_direct.csv").is_file()


def test_shellcheck_finds_nothing():
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    scripts = [*ROOT.glob("example_scripts/*.sh"), *ROOT.glob("tests/*.sh"), ROOT / ".ci/run"]
    done = subprocess.run(
        [shellcheck, *map(str, scripts)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout == ""
