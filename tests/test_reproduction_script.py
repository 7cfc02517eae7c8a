"""reproduce_paper.sh: its runs and their order, continuing, wrong values, the estimate of hours."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from tiny_runs import ROOT, TRAIN_TASKS

from routing_moe.config.flags import parse
from routing_moe.config.train import TrainSettings

SCRIPT = "reproduce_paper.sh"
SMALL = dict(OUTPUT_DIR="out", DIM="2", TOTAL_STEPS="8", FEW_SHOT_STEPS="4", JOBS="1")
TINY_BART = "task/skill_gym/tiny_bart"
TWO_STAGE = SMALL | dict(VARIANTS="multitask text two_stage", STARTS="direct text two_stage")


def programs(calls: list[str]) -> list[str]:
    """The commands of the calls and the folder that each writes; lists of tasks are left out."""
    found = []
    for call in calls:
        words = call.split()
        name = (words[1] if words[0] == "-m" else words[0]).split("/")[-1].removesuffix(".py").split(".")[-1]
        if name == "train" and "--do_train" not in words:
            name = "predict"
        place = re.search(r"--output_(?:dir|file) (?:out/)?(\S+)", call)
        if name != "list_tasks":
            found.append(f"{name} {place[1]}" if place else name)
    return found


def test_every_variant_has_existing_flags():
    text = (ROOT / "example_scripts" / SCRIPT).read_text()
    names = "".join(re.findall(r'^(?:PUBLISHED|ALL)\+?="(.*)"', text, flags=re.MULTILINE))
    names = names.replace("$PUBLISHED", "")
    command = f"source example_scripts/variants.sh; for variant in {names}; do script_of $variant; done"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    calls = [shlex.split(line) for line in done.stdout.splitlines()]
    assert len(calls) == len(names.split()) == 17
    for script, *flags in calls:
        assert (ROOT / "example_scripts" / script).is_file()
        parse(TrainSettings, ["--output_dir", "x", *flags])


def test_runs_come_in_the_order_in_which_they_need_each_other(scripts):
    code, calls, output = scripts.run(SCRIPT, finishes=True, **TWO_STAGE)
    assert code == 0, output
    expected = [
        *("text vectors/text", "text vectors/text_each"),
        *("train runs/multitask/seed42", "train runs/text/seed42", "train runs/straight_through/seed42"),
        *("merge runs/two_stage/seed42", "train runs/two_stage/seed42"),
        *("predict runs/multitask/seed42", "predict runs/text/seed42"),
        *("predict runs/two_stage/seed42", "predict runs/straight_through/seed42"),
        *few_shot("direct"),
        *few_shot("text"),
        *few_shot("two_stage"),
        *("inspect_routes", "create_gif", "correlate_routes", "report"),
        *("compare_runs tables/train_tasks", "overview tables", "compare_runs tables/test_tasks"),
        "compute_arg tables/zero_shot_over_multitask.csv",
        "compute_arg tables/few_shot_over_direct.csv",
        "report tables/report.html",
    ]
    assert programs(calls) == expected
    by_program = dict(zip(programs(calls), [c for c in calls if "list_tasks" not in c], strict=True))
    trained = by_program["train runs/text/seed42"]
    assert "--do_train --do_predict " in trained
    assert "--taskvecs out/vectors/text " in trained
    assert "--freeze_task_model --seed 42 --predict_max_examples 100 --resume" in trained
    assert by_program["predict runs/text/seed42"].endswith(
        "--predict_split test --output_dir out/runs/text/seed42"
    )
    assert "--routes_from out/runs/straight_through/seed42" in by_program["merge runs/two_stage/seed42"]
    assert "--total_steps 16 " in by_program["train runs/two_stage/seed42"]
    assert "--tasks train test" in by_program["text vectors/text"]
    tuned = by_program["finetune few_shot/text/seed42/singletask-plural"]
    assert "--init_dir out/runs/text/seed42 --seed 42 --samples all --taskvecs out/vectors/text_each" in tuned
    assert "--learning_rate_list 1e-5 2e-5 5e-5 --bsz_list 2 4 8 --total_steps 4 " in tuned
    assert "--names direct text two_stage --seeds 42 " in calls[-2]
    assert "--summary2 out/few_shot/text/seed{seed}/summary.csv out/few_shot/two_stage/" in calls[-2]
    page = (scripts.folder / "out/tables/study.md").read_text()
    assert page == "# Tables of out\n"  # the commands are only recorded


def few_shot(start: str) -> list[str]:
    folder = f"few_shot/{start}/seed42"
    names = [f"{program} {folder}/singletask-plural" for program in ("check_start", "finetune")]
    return [*names, f"collect_results {folder}/summary.csv"]


def call_with(calls: list[str], part: str) -> str:
    (call,) = [call for call in calls if f"{part} " in f"{call} "]
    return call


def test_settings_of_other_scripts_do_not_change_the_study(scripts):
    """And vectors of samples, which only fine-tuning from runs with vectors reads, are not computed."""
    others = dict(LEARNING_RATE="3", ROUTER_LR="3", STAGE2_LEARNING_RATE="3", STAGE2_NO_EVAL_UNTIL="3")
    variables = SMALL | dict(VARIANTS="two_stage fisher", STARTS="direct", ABLATE_FLAGS="none") | others
    code, calls, output = scripts.run(SCRIPT, finishes=True, **variables)
    assert code == 0, output
    assert not any(" 3 " in call for call in calls)
    assert not any("--samples each" in call or "cli.ablate" in call for call in calls)
    assert "ABLATE_FLAGS=none" in (scripts.folder / "out/settings").read_text()


def test_a_second_call_runs_only_what_is_not_finished(scripts):
    assert scripts.run(SCRIPT, finishes=True, **TWO_STAGE)[0] == 0
    for scores in (
        "text/seed42/best/eval-test-performance.csv",
        "two_stage/seed42/best/eval-test_tasks-test-performance.csv",
    ):
        (scripts.folder / "out/runs" / scores).unlink()
    code, calls, output = scripts.run(SCRIPT, finishes=True, **TWO_STAGE)
    assert code == 0, output
    expected = ["train runs/text/seed42", "predict runs/two_stage/seed42"]
    assert [name for name in programs(calls) if "tables" not in name] == expected
    assert "exists   vectors text" in output
    code, calls, output = scripts.run(SCRIPT, finishes=True, **TWO_STAGE | dict(TOTAL_STEPS="9", DIM="1"))
    assert (code, programs(calls)) == (2, [])
    assert "TOTAL_STEPS is '9', but the runs in out have '8'; set another OUTPUT_DIR" in output
    assert "DIM is '1'" in output


def test_a_failure_skips_what_needs_it_and_the_rest_is_run(scripts):
    """The fake commands write nothing but what `finishes` writes, and fine-tuning on plural fails."""
    variables = SMALL | dict(VARIANTS="multitask", STARTS="direct multitask")
    code, calls, output = scripts.run(SCRIPT, failing="plural", finishes=True, **variables)
    assert code == 1
    assert "not finished: few_shot direct/seed42; the end of out/logs/few_shot-direct-seed42.log:" in output
    assert "fine-tuning on plural ended with exit code 3" in output
    assert (scripts.folder / "out/few_shot/direct/seed42/incomplete-summary.csv").is_file()
    assert programs(calls)[-1] == "compare_runs tables/test_tasks"
    times = pd.read_csv(scripts.folder / "out/times.csv")
    assert times["ended"].tolist() == ["finished"] * 2 + ["failed"] * 2

    code, calls, output = scripts.run(SCRIPT, **variables | dict(OUTPUT_DIR="other"))
    assert code == 1
    assert "skipped  few_shot multitask/seed42, which needs other/runs/multitask/seed42/best/" in output
    unfinished = re.findall(r"^not finished: (\S+ \S+?);? ", output, flags=re.MULTILINE)
    runs = ["training multitask", "zero_shot multitask", "few_shot direct", "few_shot multitask"]
    assert unfinished == [f"{run}/seed42" for run in runs]
    assert "not finished: few_shot multitask/seed42; it was skipped" in output
    assert "Tables: other/tables" in output


def test_wrong_values_are_reported_together_before_anything_runs(scripts):
    wrong = dict(VARIANTS="multitask softmx", STARTS="direct average", SEEDS="1 1 x", JOBS="0", DIM="3")
    wrong |= dict(LEARNING_RATE_LIST="1e-5 fast", BSZ_LIST="", FEW_SHOT_STEPS="1 2", DATA_DIR="no_gym")
    wrong |= dict(SAMPLES="one", OUTPUT_DIR="out:1", CLUSTERS="many", STAGE1_STEPS="half")
    code, calls, output = scripts.run(SCRIPT, "--dryrun", **SMALL | wrong)
    assert (code, programs(calls)) == (2, [])
    messages = [
        "unknown argument --dryrun (expected: --dry_run)",
        "VARIANTS: unknown variant softmx",
        "STARTS: average is not one of VARIANTS",
        "SEEDS: 1 is given more than once",
        "SEEDS, WARMUP_STEPS: x is not a whole number",
        "JOBS: 0 is not a whole number of at least 1",
        "FEW_SHOT_STEPS: 1 2 is more than one value",
        "LEARNING_RATE_LIST: fast is not a number",
        "DATA_DIR: no_gym: no such folder",
        "SPLIT: no_gym/split.json: no such file",
        "SAMPLES: one is not all, first or seeds",
        "CLUSTERS: many is not auto or a whole number",
        "STAGE1_STEPS: half is not a whole number",
        "OUTPUT_DIR: out:1 has one of the characters",
    ]
    assert [message for message in messages if f"error: {message}" not in output] == []
    assert not (scripts.folder / "out:1").exists()
    code, _, output = scripts.run(SCRIPT, **SMALL | dict(DIM="3", VARIANTS="fisher"))
    assert code == 2
    assert "DIM: 3; it must be less than the number of train tasks" in output
    for variant in ("gradient_routing", "gradient_upcycled"):
        code, _, output = scripts.run(SCRIPT, **SMALL | dict(VARIANTS=variant, DENSE_STEPS="8"))
        assert (code, output) == (2, "error: DENSE_STEPS: 8 is not below TOTAL_STEPS, 8\n")


def test_tasks_that_the_gym_lacks_are_built_first(scripts):
    own = scripts.folder / "split.json"
    own.write_text(json.dumps(dict(train=TRAIN_TASKS, test=["plural"])))
    build = scripts.folder / "example_scripts/build_gym.sh"
    build.write_text('echo "$OUTPUT_DIR $*" >>built\nexit 1\n')
    variables = SMALL | dict(DATA_DIR="", SPLIT="split.json", VARIANTS="multitask")
    code, calls, output = scripts.run(SCRIPT, finishes=True, **variables)
    assert (code, programs(calls)) == (1, [])
    assert (scripts.folder / "built").read_text() == "data/gym --split split.json\n"
    assert "to run the study without them, set SPLIT=data/gym/split.json" in output

    # The advice, in the same OUTPUT_DIR.
    shutil.copytree(scripts.gym, scripts.folder / "data/gym")
    code, calls, output = scripts.run(SCRIPT, finishes=True, **variables | dict(SPLIT="data/gym/split.json"))
    assert code == 0, output
    trained = call_with(calls, "--output_dir out/runs/multitask/seed42 --learning_rate 1e-5")
    assert "--train_dir data/gym --custom_tasks_splits data/gym/split.json" in trained
    assert "--skip_malformed" in trained


def test_a_gym_that_was_built_before_has_malformed_lines_left_out(scripts, tmp_path):
    built = Path(shutil.copytree(scripts.gym, tmp_path / "gym"))
    (built / "gym_report.csv").touch()
    for folder, expected in ((scripts.gym, False), (built, True)):
        variables = dict(DATA_DIR=str(folder), VARIANTS="multitask", OUTPUT_DIR=f"out{expected}")
        _, calls, _ = scripts.run(SCRIPT, **SMALL | variables)
        assert ("--skip_malformed" in call_with(calls, "--num_experts 1")) == expected


@pytest.mark.slow
def test_a_small_study_continues_to_its_tables(scripts):
    """Recorded commands are executed, in a folder with a space."""
    small = dict(VARIANTS="multitask", SAMPLES="first", MODEL=TINY_BART, JOBS="1", OUTPUT_DIR="my study")
    small |= dict(TOTAL_STEPS="2", EVAL_PERIOD="2", FEW_SHOT_STEPS="2", FEW_SHOT_EVAL_PERIOD="2")
    small |= dict(WARMUP_STEPS="1", BSZ_LIST="2")
    code, _, output = scripts.run(SCRIPT, really=True, STARTS="direct", **small)
    assert code == 0, output
    out = scripts.folder / "my study"
    assert (out / "tables/test_tasks/comparison.md").is_file()
    page = (out / "tables/study.md").read_text()
    assert page.count("\n## ") == 3  # one start: no gains

    summary = out / "few_shot/direct/seed42/summary.csv"
    expected = summary.read_text()
    summary.unlink()
    (summary.parent / "singletask-plural/results.csv").unlink()
    code, calls, output = scripts.run(SCRIPT, really="few_shot/", STARTS="direct multitask", **small)
    assert code == 0, output
    called = ["check_start", "finetune", "collect_results"] * 2 + ["compare_runs", "overview", "compare_runs"]
    called += ["compute_arg"] * 2
    assert [name.split()[0] for name in programs(calls)] == called
    assert summary.read_text() == expected
    for name in ("direct", "multitask"):
        assert len(pd.read_csv(out / f"tables/few_shot_over_{name}.csv")) == 1  # task


# ---- hours


@pytest.mark.slow
def test_a_dry_run_lists_the_runs_and_estimates_their_hours(scripts):
    (scripts.folder / "out/vectors/text").mkdir(parents=True)
    (scripts.folder / "out/vectors/text/meta.json").write_text("{}")
    own = TWO_STAGE | dict(MODEL=TINY_BART, MIXED_PRECISION="bf16")
    code, calls, output = scripts.run(SCRIPT, "--dry_run", really="benchmarks.reproduction", **own)
    assert code == 0, output
    assert programs(calls) == ["reproduction"]
    assert re.search(r"^vectors +text +finished +- +- +out/vectors/text$", output, flags=re.MULTILINE)
    assert re.search(
        r"^training +text/seed42 +to do +\d\S* +\d\S* +out/runs/text/seed42$", output, flags=re.MULTILINE
    )
    assert "OUTPUT_DIR=out/runs/text/seed42 TASKVECS=out/vectors/text TOTAL_STEPS=8 " in output
    assert "medians of 3 steps and 3 batches of answers after a warm-up" in output
    assert "Products in bf16." in output
    assert "Not included: text vectors" in output
    table = pd.read_csv(scripts.folder / "out/plan-dry_run.csv")
    assert table["state"].tolist() == ["finished"] + ["to do"] * (len(table) - 1)
    assert not (scripts.folder / "out/settings").exists()
    assert not (scripts.folder / "out/plan.tsv").exists()


def test_a_plan_counts_evaluations_and_the_answers_to_files(scripts):
    variables = TWO_STAGE | dict(TOTAL_STEPS="100", EVAL_PERIOD="30", FEW_SHOT_EVAL_PERIOD="3", SEEDS="1")
    variables |= dict(VARIANTS="multitask random two_stage", STARTS="direct random")
    scripts.run(SCRIPT, finishes=True, **variables)
    plan = pd.read_csv(scripts.folder / "out/plan.tsv", sep="\t").set_index(["step", "run"])
    scored = "plain:train/dev/first/100:1;plain:train/test/first/100:1"
    assert plan["work"]["training", "multitask/seed1"] == "plain:100:32:train"
    assert plan["answers"]["training", "multitask/seed1"] == f"plain:train/dev/first:4;{scored}"
    assert plan["answers"]["training", "random/seed1"].startswith("dense:train/dev/first:20;")
    unseen = "test/dev/first:5;dense:test/test/first:5"
    assert plan["answers"]["zero_shot", "random/seed1"] == f"dense:{unseen}"
    # Every 10 of 200 steps, from step 50 on.
    assert plan["answers"]["stage2", "two_stage/seed1"].startswith("dense:train/dev/first:16;dense:train/")
    # 9 configurations of each sample, each with 2 evaluations and one test file.
    assert plan["work"]["few_shot", "direct/seed1"] == "plain:60:2,4,8:test"
    assert plan["answers"]["few_shot", "direct/seed1"] == "plain:test/dev/all:18;plain:test/test/all:9"
    assert plan["answers"]["few_shot", "random/seed1"] == "dense:test/dev/all:90;dense:test/test/all:45"
    assert plan["answers"]["figures", "two_stage/seed1"] == "dense:train/dev/first:ablation"
