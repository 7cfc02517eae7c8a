"""The scripts for task vectors: their commands and flags, and runs with their defaults."""

import pytest
from tiny_runs import ROWS, TRAIN_TASKS
from tiny_vectors import meta, vectors

EMBEDDED = dict(MODEL="", DATA_DIR="")


def merged(scripts, run: str) -> None:
    """Write a checkpoint as the merge, whose command is only recorded, would."""
    (scripts.folder / run / "init").mkdir(parents=True)
    (scripts.folder / run / "init/config.json").write_text("{}")


@pytest.mark.slow
def test_fisher_vectors_are_computed_and_reduced(scripts):
    small = [
        "--max_examples",
        "4",
        "--total_steps",
        "1",
        "--max_input_length",
        "24",
        "--max_output_length",
        "8",
    ]
    code, _, output = scripts.run("task_vectors.sh", "fisher", *small, really=True)
    assert code == 0, output
    folder = scripts.folder / "data/task_vectors/fisher"
    assert list(vectors(folder)) == sorted(ROWS)
    split = str(scripts.gym / "split.json")
    code, _, output = scripts.run("reduce_task_vectors.sh", SPLIT=split, DIM="2", really=True)
    assert code == 0, output
    assert "explained variance by number of components, fitted on 3 tasks: 1: " in output
    reduced = scripts.folder / "data/task_vectors/fisher2"
    assert meta(reduced)["fitted_on"] == TRAIN_TASKS
    assert meta(reduced)["settings"]["transform"] == "log"
    assert {len(vector) for vector in vectors(reduced).values()} == {2}


def test_vectors_are_reduced_with_the_split_of_the_gym_by_default(scripts):
    code, calls, _ = scripts.run("reduce_task_vectors.sh", TASKVECS="mine/", DIM="3")
    assert code == 0
    split = f"{scripts.gym}/split.json"
    assert calls == [
        f"-m task.task_emb.reduce --taskvecs mine/ --custom_tasks_splits {split} --dim 3 --output_dir mine3 "
        "--transform log"
    ]


METHODS = {
    "random": "--train_dir GYM",
    "text": "--train_dir GYM --model BART",
    "finetuned_text": "--train_dir GYM --model BART",
    "fisher": "--train_dir GYM --model BART",
    "gradient": "--train_dir GYM --model BART",
    "descriptions": "--descriptions dataloader/descriptions.json",
}


@pytest.mark.parametrize("method", METHODS)
def test_each_method_uses_the_given_gym_and_model(scripts, method):
    code, calls, _ = scripts.run(
        "task_vectors.sh", method, "--tasks", "test", SPLIT="s.json", NUM_WORKERS="3"
    )
    expected = METHODS[method].replace("GYM", str(scripts.gym)).replace("BART", str(scripts.bart))
    ending = f"--num_workers 3 --output_dir data/task_vectors/{method} {expected} --tasks test"
    assert (code, calls) == (0, [f"-m task.task_emb.{method} --custom_tasks_splits s.json {ending}"])


@pytest.mark.parametrize("method", METHODS)
def test_each_method_uses_the_embedded_gym_by_default(scripts, method):
    (scripts.folder / "data/skill_gym").mkdir(parents=True)
    code, (generated, called), _ = scripts.run("task_vectors.sh", method, **EMBEDDED)
    assert code == 0
    assert generated == "-m task.skill_gym.generate --output_dir data/skill_gym"
    assert ("--train_dir data/skill_gym" in called) == (method != "descriptions")
    assert ("--descriptions data/skill_gym/descriptions.json" in called) == (method == "descriptions")
    assert ("--model task/skill_gym/tiny_bart" in called) == (method not in ("random", "descriptions"))
    assert ("--samples all --max_examples 160" in called) == (method not in ("random", "descriptions"))
    assert ("--max_output_length 32" in called) == (method in ("fisher", "finetuned_text", "gradient"))
    assert ("--total_steps 100" in called) == (method in ("fisher", "finetuned_text"))


@pytest.mark.parametrize("method", ["", "inspect", "__init__", "tex"])
def test_an_unknown_method_is_an_error(scripts, method):
    code, calls, output = scripts.run("task_vectors.sh", *([method] if method else []))
    assert (code, calls) == (2, [])
    methods = "random, text, finetuned_text, fisher, gradient or descriptions"
    assert f"error: unknown METHOD '{method}'; give {methods}" in output


def test_fisher_vectors_are_frozen_in_both_stages(scripts):
    variables = dict(OUTPUT_DIR="models/mine", DIM="7", SPLIT="s.json", STAGE1_FLAGS="--num_experts 4")
    merged(scripts, "models/mine")
    code, calls, output = scripts.run("run_fisher_two_stage.sh", "--predict_samples", "all", **variables)
    assert code == 0, output
    fisher, reduced, stage1, merge, stage2 = calls
    assert fisher.startswith("-m task.task_emb.fisher --custom_tasks_splits s.json")
    assert "--output_dir models/mine/fisher " in fisher
    assert reduced == (
        "-m task.task_emb.reduce --taskvecs models/mine/fisher --custom_tasks_splits s.json --dim 7 "
        "--output_dir models/mine/fisher7 --transform log"
    )
    assert "--output_dir models/mine/stage1 " in stage1
    assert "--taskvecs models/mine/fisher7 " in stage1
    assert stage1.endswith("--resume --freeze_task_model --num_experts 4")
    assert "--routes_from models/mine/stage1" in merge
    assert "--output_dir models/mine " in stage2
    assert "--task_model_lr 0" in stage2
    assert "--taskvecs" not in stage2
    assert stage2.endswith("--resume --predict_samples all")
