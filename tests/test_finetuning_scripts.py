"""Lists of tasks, and the scripts that fine-tune on each task of a list."""

import pandas as pd
import pytest

from dataloader.errors import InputError
from dataloader.list_tasks import tasks_named
from routing_moe.cli.list_tasks import main

# ---- names of tasks


def test_sections_and_names_select_tasks_once_and_in_order(world, tmp_path):
    split = world.gym / "split.json"
    other = tmp_path / "other.json"
    other.write_text('{"train": ["a"], "dev": ["b", "colour"]}')
    assert tasks_named(["test"], split) == ["plural"]
    assert tasks_named(["count", "test", "count", f"{other}:dev"], split) == [
        "count",
        "plural",
        "b",
        "colour",
    ]
    assert tasks_named(["all"], split) == ["colour", "count", "opposite", "plural"]
    assert tasks_named(["count", "unheard_of"], "no split is read") == ["count", "unheard_of"]


def test_a_section_that_is_empty_or_does_not_exist_is_an_error(world, tmp_path):
    split = world.gym / "split.json"
    with pytest.raises(InputError, match=r"split\.json: the dev section is empty"):
        tasks_named(["count", "dev"], split)
    with pytest.raises(InputError, match="no section 'tets' in a split; did you mean 'test'"):
        tasks_named([f"{split}:tets"], split)
    with pytest.raises(InputError, match="no such file"):
        tasks_named(["test"], tmp_path / "no.json")


def test_the_command_prints_one_line_per_task_or_an_error(world, capsys):
    split = str(world.gym / "split.json")
    assert main(["--split", split, "train", "plural"]) == 0
    assert capsys.readouterr().out == "colour\ncount\nopposite\nplural\n"
    assert main(["--split", split, "dev"]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", f"error: {split}: the dev section is empty\n")
    with pytest.raises(SystemExit, match="2"):
        main(["--split", split, "--gmy", "gym", "test"])
    assert "unrecognized arguments: --gmy; did you mean '--gym'?" in capsys.readouterr().err


# ---- the scripts

TINY = dict(LEARNING_RATE_LIST="1e-3", BSZ_LIST="8", TOTAL_STEPS="2", EVAL_PERIOD="2", WARMUP_STEPS="0")
SHORT = ["--samples", "first", "--debug", "--max_input_length", "24", "--max_output_length", "8", "--quiet"]


@pytest.mark.slow
def test_a_task_that_fails_does_not_stop_fine_tuning_on_the_others(scripts, originals):
    script, arguments = (
        "finetune_a_list_of_tasks_moe.sh",
        ("count plural", str(originals.out), "mine", *SHORT),
    )
    code, _, output = scripts.run(script, *arguments, really=True, failing="count", **TINY)
    assert code != 0
    assert "error: fine-tuning on count ended with exit code 3" in output
    assert output.splitlines()[-1] == "missing: count: no folder singletask-count or count in models/mine"
    assert "Traceback" not in output
    results = pd.read_csv(scripts.folder / "models/mine/singletask-plural/results.csv", index_col=0)
    assert results["prefix"].tolist() == ["plural_12_100", "plural_12_100_best"]
    assert results["route"].str.endswith("; plain BART").all()
    summary = pd.read_csv(scripts.folder / "models/mine/summary.csv", index_col=0)
    assert set(summary["task"]) == {"plural"}


STARTS = {
    "finetune_a_list_of_tasks.sh": "--checkpoint START",
    "finetune_a_list_of_tasks_moe.sh": "--moe_init --init_dir START",
    "finetune_a_list_of_tasks_moe_avg.sh": "--moe_init --moe_avg_route --init_dir START",
    "finetune_a_list_of_tasks_moe_random.sh": "--moe_init --moe_random_route --init_dir START",
    "finetune_a_list_of_tasks_moe_random2.sh": "--moe_init --moe_random2_route --init_dir START",
}


@pytest.mark.parametrize("script", STARTS)
def test_each_script_fine_tunes_every_task_from_its_checkpoint_with_the_published_grid(scripts, script):
    code, calls, _ = scripts.run(script, "test count", "START", "mine", "--seed", "7", NUM_WORKERS="4")
    assert code == 0
    listed, checked, *tuned, collected = calls
    assert checked == tuned[0].replace("routing_moe.cli.finetune", "example_scripts.check_start")
    assert listed.startswith("-m routing_moe.cli.list_tasks --gym")
    assert len(tuned) == 2
    for task, command in zip(("plural", "count"), tuned, strict=True):
        assert f"--task_dir {scripts.gym}/{task} --do_train --do_predict --model {scripts.bart}" in command
        assert "--learning_rate_list 1e-5 2e-5 5e-5 --bsz_list 2 4 8 --total_steps 1000" in command
        assert "--num_workers 4" in command
        assert f"--output_dir models/mine/singletask-{task} {STARTS[script]} --seed 7" in command
    assert collected.endswith(
        "--logs_dir models/mine --tasks plural count --output_file models/mine/summary.csv"
    )


def test_logits_have_learning_rates_of_their_own_unless_some_are_given(scripts):
    logits = ["--route_training", "logits"]
    for flags, rates in ((logits, "0.03 0.1 0.3"), ([*logits, "--learning_rate_list", "1", "2"], "1 2")):
        _, calls, _ = scripts.run("finetune_a_list_of_tasks_moe_avg.sh", "count", "START", "mine", *flags)
        (command,) = [call for call in calls if "routing_moe.cli.finetune" in call]
        assert f"--learning_rate_list {rates} --bsz_list 2 4 8" in command


def test_a_failure_sets_the_exit_code_after_all_tasks_are_done(scripts):
    script = "finetune_a_list_of_tasks.sh"
    code, calls, output = scripts.run(script, "test count", "None", "mine", failing="plural")
    assert code == 3
    assert "error: fine-tuning on plural ended with exit code 3" in output
    assert sum("routing_moe.cli.finetune" in call for call in calls) == 2
    assert "collect_results.py" in calls[-1]


def test_a_start_that_is_not_there_is_reported_once(scripts):
    for script, start, message in (
        ("finetune_a_list_of_tasks_moe.sh", "no/moe", "error: --init_dir no/moe: no such folder"),
        ("finetune_a_list_of_tasks.sh", "None", "error: http: no such folder (nor a hub name"),
    ):
        own = dict(MODEL="./http") if start == "None" else {}
        code, calls, output = scripts.run(
            script, "all", start, "x", really="example_scripts.check_start", **own
        )
        assert code == 2
        assert output.count("error: ") == 1
        assert message.replace("http", "./http") in output
        assert not any("routing_moe.cli.finetune" in call or "collect_results" in call for call in calls)


def test_results_are_not_collected_if_no_task_could_be_fine_tuned(scripts):
    failing = dict(failing="routing_moe.cli.finetune")
    code, calls, output = scripts.run("finetune_a_list_of_tasks.sh", "all", "None", "x", **failing)
    assert code == 3
    assert output.count("error: ") == len([call for call in calls if "cli.finetune" in call]) == 4
    assert not any("collect_results" in call for call in calls)


@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        (["dev"], {}, "the dev section is empty"),
        (["test"], dict(SPLIT="no.json"), "no.json: no such file"),
        (["test"], dict(TOTAL_STEPS="0"), "TOTAL_STEPS is '0'; it must be a whole number of at least 1"),
        (["test"], dict(EVAL_PERIOD="often"), "EVAL_PERIOD is 'often'"),
    ],
)
def test_a_wrong_list_or_number_is_reported_before_anything_runs(scripts, arguments, variables, message):
    code, calls, output = scripts.run("finetune_a_list_of_tasks.sh", *arguments, **variables)
    assert code == 2
    assert message in output
    assert not any("finetune" in call for call in calls)
