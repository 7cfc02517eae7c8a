"""The paper's study: its runs, settings, tables and hours."""

import json
from pathlib import Path

import pandas as pd
import pytest
from recorded_commands import UNSEEN, value_of, write, write_gym

from dataloader.errors import InputError
from routing_moe.studies import paper
from routing_moe.studies.costed_runs import Answering, Work
from routing_moe.studies.paper_runs import PaperRuns
from routing_moe.studies.study import from_environment

SMALL = ["--model", "my/bart", "--train_dir", "gym", "--dim", "3", "--output_dir", "out"]


@pytest.fixture
def gym(recorder, tmp_path):
    """A gym with files for seven tasks, in the working directory of the recorder."""
    write_gym(tmp_path, train="abefg")
    return recorder


def planned(**flags) -> dict:
    """Returns {name: run} of a study."""
    study = paper.PaperStudy(**dict(model="my/bart", train_dir=Path("gym"), dim=3) | flags).resolved()
    return {run.name: run for run in PaperRuns(study).all()}


# ---- runs


def test_runs_come_after_what_they_need_and_all_are_done(gym):
    variants = ["--variants", "multitask", "text", "fisher_two_stage", "gradient_routing"]
    assert paper.main([*SMALL, *variants]) == 0
    names = gym.names()
    assert names.count("train") == 8  # three trainings, with the first stage; five zero-shot
    assert names.index("reduce") < names.index("two_stages")
    stage2 = gym.named("two_stages")[0]
    assert value_of(stage2, "--stage1") == "out/runs/fisher/seed42"
    tuned = {command[4]: command for command in gym.named("finetuning")}
    assert list(tuned) == ["direct", "multitask", "text", "fisher_two_stage", "gradient_routing", "fisher"]
    assert value_of(tuned["text"], "--taskvecs") == "out/vectors/text_each"
    assert value_of(tuned["fisher"], "--taskvecs") == "out/vectors/fisher3_each"
    vectors = "out/runs/gradient_routing/seed42/vectors_each"
    assert value_of(tuned["gradient_routing"], "--taskvecs") == vectors
    assert [tuned[name][1] for name in ("direct", "multitask", "text")] == ["bart", "bart", "moe"]
    gym.commands.clear()
    assert paper.main([*SMALL, "--variants", "multitask", "text"]) == 0
    assert set(gym.names()) == {"compare_runs", "overview", "compute_arg", "report"}


def test_a_failure_skips_what_needs_it_and_the_rest_is_done(gym, capsys):
    gym.failing = "--num_experts 1"
    assert paper.main([*SMALL, "--variants", "multitask", "softmax"]) == 1
    errors = capsys.readouterr().err
    log = "out/logs/training-multitask-seed42.log"
    assert f"not finished: training multitask/seed42; the end of {log}" in errors
    assert "not finished: few_shot multitask/seed42; it was skipped" in errors
    assert [command[4] for command in gym.named("finetuning")] == ["direct", "softmax"]


def test_an_incomplete_summary_does_not_finish_a_run(gym):
    gym.failing, gym.leaves_result = "finetuning", True
    assert paper.main([*SMALL, "--variants", "multitask", "--starts", "multitask"]) == 1
    assert gym.named("finetuning")
    assert not Path("out/few_shot/multitask/seed42/summary.csv").exists()


def test_a_first_stage_with_other_steps_is_trained_by_the_two_stages():
    variants = ("two_stage", "fisher_two_stage")
    runs = planned(variants=variants, stage1_steps=50, train_flags="", starts=("direct",))
    (command,) = runs["training two_stage/seed42"].commands()
    assert value_of(command, "--total_steps") == "50"
    assert "--stage1_flags=--seed 42 --init_eps 1e-8" in command
    (command,) = runs["training fisher_two_stage/seed42"].commands()
    assert "--stage1_flags=--seed 42 --init_eps 1e-8 --freeze_task_model" in command
    assert "training fisher/seed42" not in runs


@pytest.fixture(autouse=True)
def split(gym):
    """All tests read the split."""


def test_the_work_of_runs_is_counted():
    variants = ("multitask", "random", "two_stage")
    runs = planned(variants=variants, total_steps=100, eval_period=30, samples=("1", "2"))
    assert runs["training multitask/seed42"].work == (Work("plain", 100),)
    assert runs["training multitask/seed42"].answers == (
        Answering("plain", "train", "dev", times=4),
        Answering("plain", "train", "dev", most=100),
        Answering("plain", "train", "test", most=100),
    )
    assert [each.times for each in runs["training random/seed42"].answers] == [20, 5, 5]
    stage2 = runs["stage2 two_stage/seed42"]
    assert stage2.work == (Work("dense", 200),)
    assert stage2.answers[0].times == 16  # every 10 steps, from step 50 on
    few_shot = runs["few_shot multitask/seed42"]
    assert few_shot.work == (Work("plain", 2 * 2 * 3 * 1000, (2, 4, 8), "test"),)
    assert few_shot.answers[0] == Answering("plain", "test", "dev", ("1", "2"), times=9 * 10)


def test_a_gym_that_was_built_has_malformed_lines_left_out(tmp_path):
    (command,) = planned(variants=("multitask",))["training multitask/seed42"].commands()
    assert "--skip_malformed" not in command
    write(tmp_path / "gym/gym_report.csv")
    (command,) = planned(variants=("multitask",))["training multitask/seed42"].commands()
    assert "--skip_malformed" in command


# ---- settings


def test_wrong_values_are_reported_together_before_anything_runs(gym, capsys):
    wrong = "--variants sofmax --starts random --seeds 1 1 --clusters 0 --bsz_list 0 --samples some"
    assert paper.main([*SMALL, *wrong.split()]) == 2
    errors = capsys.readouterr().err
    expected = ["did you mean 'softmax'", "--starts: random", "--seeds has a value more than once"]
    for part in [*expected, "--bsz_list", "--clusters", "--samples"]:
        assert part in errors
    wrong = "--variants fisher gradient_routing --dim 5 --dense_steps 40000"
    assert paper.main([*SMALL, *wrong.split()]) == 2
    errors = capsys.readouterr().err
    assert "--dim is 5; it must be less than the number of train tasks, 5" in errors
    assert "--dense_steps is 40000; it must be below --total_steps, 30000" in errors
    write("gym/split.json", json.dumps({"train": ["a"], "test": ["c", "missing"]}))
    assert paper.main([*SMALL, "--variants", "multitask"]) == 2
    assert "no task 'missing' in gym" in capsys.readouterr().err
    assert gym.commands == []


def test_runs_of_other_settings_are_refused(gym, capsys):
    assert paper.main([*SMALL, "--variants", "multitask", "--starts", "direct"]) == 0
    gym.commands.clear()
    assert paper.main([*SMALL, "--variants", "multitask", "--total_steps", "7"]) == 2
    assert "--total_steps is 7, but in out/study.json it was 30000" in capsys.readouterr().err
    assert gym.commands == []


def test_tasks_that_the_gym_lacks_are_built_first(gym, capsys, monkeypatch):
    tasks = json.dumps({"train": ["a", "eli5-askh"], "dev": [], "test": ["c"]})
    monkeypatch.setattr(paper, "BUILT_SPLIT", write("given.json", tasks))
    monkeypatch.setattr("dataloader.gym.PUBLISHED_SPLITS", Path())
    flags = ["--model", "facebook/bart-base", "--variants", "multitask"]
    own = "data/gym/splits/given.json"
    write(own, json.dumps({"train": ["a"], "test": []}))
    assert paper.main(flags) == 2
    assert gym.commands == [["build_gym", "--output_dir", "data/gym", "--tasks", "a", "c"]]
    errors = capsys.readouterr().err
    assert f"3 tasks are not in data/gym: a, eli5-askh, c; use {own}, which has those that are" in errors
    assert "data/gym/gym_report.csv says why some tasks could not be built" in errors
    for task in "ac":
        write(f"data/gym/{task}/{task}_16_13_train.tsv", "in\tout\n")
    write(own, json.dumps({"train": ["a"], "test": ["c"]}))
    gym.commands.clear()
    assert paper.main(flags) == 0  # the source of eli5-askh is gone
    assert "build_gym" not in gym.names()
    assert value_of(gym.named("train")[0], "--custom_tasks_splits") == own
    assert paper.main(flags) == 0


def test_variables_set_flags_also_to_no_flags():
    environment = dict(VARIANTS="multitask softmax", TRAIN_FLAGS="", DATA_DIR="gym", DRY_RUN="no", SEEDS=" ")
    words = from_environment(paper.PaperStudy, environment)
    assert set(words) == {"--variants", "multitask", "softmax", "--train_flags=", "--train_dir=gym"}


# ---- whole studies


@pytest.mark.slow
def test_a_small_study_ends_with_its_tables(recorder, world, capsys):
    """Commands are executed, in a folder with a space."""
    recorder.really = "routing_moe."
    out = "my study"
    small = f"--model {world.bart} --train_dir {world.gym} --samples first --total_steps 2".split()
    small += ["--output_dir", out, "--variants", "multitask", "--learning_rate_list", "1e-3"]
    for flag in ("eval_period", "few_shot_steps", "few_shot_eval_period", "warmup_steps", "bsz_list"):
        small += [f"--{flag}", "2"]
    small += ["--text_flags", "--max_input_length 24 --max_output_length 8 --num_beams 1"]
    assert paper.main([*small, "--starts", "direct", "multitask"]) == 0
    folder = Path(out)
    assert (folder / "tables/test_tasks/comparison.md").is_file()
    assert (folder / f"runs/multitask/seed42/{UNSEEN}").is_file()
    for name in ("direct", "multitask"):
        assert len(pd.read_csv(folder / f"tables/few_shot_over_{name}.csv")) == 1  # task


def test_the_split_must_exist():
    files = dict(train_dir=Path("gym"), custom_tasks_splits=Path("none.json"))
    study = paper.PaperStudy(model="my/bart", **files).resolved()
    assert any("none.json" in problem for problem in study.problems())
    with pytest.raises(InputError):
        PaperRuns(study)
