"""reproduce_paper.sh: its runs and their order, continuing, wrong values, the estimate of hours."""

import argparse
import json
import re
import shlex
import subprocess

import pandas as pd
import pytest
from tiny_runs import ROOT, TRAIN_TASKS

from benchmarks import measuring, reproduction
from routing_moe.config.flags import parse
from routing_moe.config.train import TrainSettings

SCRIPT = "reproduce_paper.sh"
SMALL = dict(OUTPUT_DIR="out", DIM="2", TOTAL_STEPS="8", FEW_SHOT_STEPS="4", JOBS="1")
TWO_STAGE = SMALL | dict(VARIANTS="multitask text two_stage", STARTS="direct text two_stage")


def programs(calls: list[str]) -> list[str]:
    """The commands of the calls and the folder that each writes; lists of tasks are left out."""
    found = []
    for call in calls:
        words = call.split()
        name = (words[1] if words[0] == "-m" else words[0]).split("/")[-1].removesuffix(".py").split(".")[-1]
        place = re.search(r"--output_(?:dir|file) (?:out/)?(\S+)", call)
        if name != "list_tasks":
            found.append(f"{name} {place[1]}" if place else name)
    return found


def test_every_variant_has_existing_flags():
    text = (ROOT / "example_scripts" / SCRIPT).read_text()
    names = "".join(re.findall(r'^ALL\+?="(.*)"', text, flags=re.MULTILINE))
    command = f"source example_scripts/variants.sh; for variant in {names}; do script_of $variant; done"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    calls = [shlex.split(line) for line in done.stdout.splitlines()]
    assert len(calls) == len(names.split()) == 13
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
        *(f"train runs/{name}/seed42" for name in ("multitask", "text", "two_stage", "straight_through")),
        *few_shot("direct"),
        *few_shot("text"),
        *few_shot("two_stage"),
        *("inspect_routes", "create_gif", "correlate_routes", "report"),
        *("compare_runs tables/train_tasks", "compare_runs tables/test_tasks"),
        "compute_arg tables/zero_shot_over_multitask-seed42.csv",
        "compute_arg tables/few_shot_over_direct-seed42.csv",
    ]
    assert programs(calls) == expected
    by_program = dict(zip(programs(calls), [c for c in calls if "list_tasks" not in c], strict=True))
    assert "--taskvecs out/vectors/text " in calls_with(
        calls, "--output_dir out/runs/text/seed42", "--do_train"
    )
    assert "--freeze_task_model" in calls_with(calls, "--output_dir out/runs/text/seed42", "--do_train")
    assert "--routes_from out/runs/straight_through/seed42" in by_program["merge runs/two_stage/seed42"]
    assert "--total_steps 16 " in calls_with(calls, "--output_dir out/runs/two_stage/seed42", "--do_train")
    tuned = by_program["finetune few_shot/text/seed42/singletask-plural"]
    assert "--init_dir out/runs/text/seed42 --seed 42 --samples all --taskvecs out/vectors/text_each" in tuned
    assert "--learning_rate_list 1e-5 2e-5 5e-5 --bsz_list 2 4 8 --total_steps 4 " in tuned
    assert "--names direct text two_stage" in calls[-1]


def few_shot(start: str) -> list[str]:
    folder = f"few_shot/{start}/seed42"
    return [f"finetune {folder}/singletask-plural", f"collect_results {folder}/summary.csv"]


def calls_with(calls: list[str], *parts: str) -> str:
    (call,) = [call for call in calls if all(f"{part} " in f"{call} " for part in parts)]
    return call


def test_a_second_call_runs_only_what_is_not_finished(scripts):
    assert scripts.run(SCRIPT, finishes=True, **TWO_STAGE)[0] == 0
    (scripts.folder / "out/runs/text/seed42/best/eval-test-performance.csv").unlink()
    code, calls, output = scripts.run(SCRIPT, finishes=True, **TWO_STAGE)
    assert code == 0, output
    assert [name for name in programs(calls) if "tables" not in name] == ["train runs/text/seed42"]
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
    assert programs(calls)[-1].startswith("compare_runs")
    times = pd.read_csv(scripts.folder / "out/times.csv")
    assert times["ended"].tolist() == ["finished"] * 2 + ["failed"] * 2

    code, calls, output = scripts.run(SCRIPT, **variables | dict(OUTPUT_DIR="other"))
    assert code == 1
    assert "skipped  zero_shot multitask/seed42, which needs other/runs/multitask/seed42/best/" in output
    assert not any("--predict_split" in call for call in calls)


def test_wrong_values_are_reported_together_before_anything_runs(scripts):
    wrong = dict(VARIANTS="multitask softmx", STARTS="direct average", SEEDS="1 1 x", JOBS="0", DIM="3")
    wrong |= dict(LEARNING_RATE_LIST="1e-5 fast", BSZ_LIST="", FEW_SHOT_STEPS="1 2", DATA_DIR="no_gym")
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
    ]
    assert [message for message in messages if f"error: {message}" not in output] == []
    assert not (scripts.folder / "out").exists()
    code, _, output = scripts.run(SCRIPT, **SMALL | dict(DIM="3", VARIANTS="fisher"))
    assert code == 2
    assert "DIM: 3; it must be less than the number of train tasks" in output


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

    build.write_text(f"mkdir -p data && cp -r {scripts.gym} data/gym\n")
    code, calls, output = scripts.run(SCRIPT, finishes=True, **variables)
    assert code == 0, output
    assert "--skip_malformed" in calls_with(calls, "--output_dir out/runs/multitask/seed42", "--do_train")
    assert "--train_dir data/gym" in calls_with(calls, "--output_dir out/runs/multitask/seed42", "--do_train")


# ---- hours


@pytest.mark.slow
def test_a_dry_run_lists_the_runs_and_estimates_their_hours(scripts):
    (scripts.folder / "out/vectors/text").mkdir(parents=True)
    (scripts.folder / "out/vectors/text/meta.json").write_text("{}")
    code, calls, output = scripts.run(
        SCRIPT, "--dry_run", really="benchmarks.reproduction", MODEL="", **TWO_STAGE
    )
    assert code == 0, output
    assert programs(calls) == ["reproduction"]
    assert re.search(r"^vectors +text +finished +out/vectors/text$", output, flags=re.MULTILINE)
    assert re.search(
        r"^training +text/seed42 +to do +\S+ h +out/runs/text/seed42$", output, flags=re.MULTILINE
    )
    assert "OUTPUT_DIR=out/runs/text/seed42 TOTAL_STEPS=8 " in output
    assert "medians of 3\nsteps after a warm-up step" in output
    assert "Not included: dev and test scores" in output
    table = pd.read_csv(scripts.folder / "out/plan.csv")
    assert table["state"].tolist() == ["finished"] + ["to do"] * (len(table) - 1)
    assert not (scripts.folder / "out/settings").exists()


def test_hours_are_steps_times_seconds_of_passes_and_updates():
    times = {4: dict(plain=dict(forward_backward_s=2.0, optimizer_s=1.0))}
    seconds = reproduction.step_seconds(times, "cpu")
    assert [seconds("plain", batch) for batch in (2, 4, 32)] == [2, 3, 17]
    assert reproduction.hours(reproduction.parse_work("plain:3600:2,4"), seconds) == 5
    times[16] = dict(plain=dict(forward_backward_s=3.0, optimizer_s=1.0))
    seconds = reproduction.step_seconds(times, "cuda")  # a micro-batch that is not full takes as long
    assert [seconds("plain", batch) for batch in (2, 8, 32)] == [3, 5, 7]


def test_sizes_of_published_names_need_no_download(monkeypatch, capsys):
    def missing(*args, local_files_only):
        assert local_files_only
        raise OSError

    monkeypatch.setattr(reproduction.AutoConfig, "from_pretrained", missing)
    assert reproduction.add_size("facebook/bart-base") == "base"
    assert "its published sizes" in capsys.readouterr().out
    assert measuring.SIZES["base"] == dict(
        layers=6, d_model=768, ffn=3072, heads=12, vocab=50265, positions=1024
    )


def test_lengths_are_those_of_the_gym_or_assumed(world, tmp_path):
    args = argparse.Namespace(split=world.gym / "split.json", model="none", longest=[9, 64], gym=world.gym)
    (S, T), described = reproduction.mean_lengths(args)
    assert 2 < S <= 9
    assert 2 < T < 64
    assert "train examples of 3 tasks" in described
    args.gym = tmp_path / "none"
    lengths, described = reproduction.mean_lengths(args)
    assert lengths == (9, reproduction.ASSUMED_LENGTHS[1])
    assert described.startswith("assumed")
