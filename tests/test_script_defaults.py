"""What scripts train by default: the model, the hyperparameters that go with it, what they print first."""

import json
import shlex
import shutil
import subprocess

import pytest
from recording_scripts import Scripts
from tiny_runs import ROOT

TINY, BASE, LARGE = "task/skill_gym/tiny_bart", "facebook/bart-base", "facebook/bart-large"
CONFLICT = "data/conflict_gym_bart/width16"
NOTHING = dict(MODEL="", DATA_DIR="")
STEPS = {TINY: ("1000", "1e-3"), BASE: ("30000", "1e-5")}


def values(call: str) -> dict[str, str]:
    """Returns {flag: value} of a recorded command; of several the last counts, of lists all words."""
    found, flag = {}, ""
    for word in shlex.split(call):
        if word.startswith("--"):
            flag, found[word] = word, ""
        elif flag:
            found[flag] = f"{found[flag]} {word}".strip()
    return found


def commands(calls: list[str], module: str) -> list[dict[str, str]]:
    return [values(call) for call in calls if f"{module} " in call]


def write_config(folder, like=ROOT / TINY, **changed):
    """Writes a checkpoint's config.json with the sizes of a BART and fields of a mixture."""
    folder.mkdir(parents=True, exist_ok=True)
    fields = json.loads((like / "config.json").read_text()) | {"model_type": "routing_bart", "num_experts": 3}
    (folder / "config.json").write_text(json.dumps(fields | changed, indent=2))


# ---- training


@pytest.mark.parametrize(
    ("given", "model"),
    [
        ({}, TINY),
        (dict(DATA_DIR="gym"), BASE),
        (dict(SPLIT="split.json"), BASE),
        (dict(TASKVECS="vectors"), BASE),
        (dict(MODEL=TINY, DATA_DIR="gym"), TINY),
        (dict(MODEL=f"{ROOT}/{TINY}/", DATA_DIR="gym", TASKVECS="vectors"), TINY),
        (dict(MODEL=BASE), BASE),
    ],
)
def test_data_of_ones_own_select_bart_base_and_hyperparameters_go_with_the_model(scripts, given, model):
    write_embedded_gym(scripts)
    code, calls, output = scripts.run("train_routing_bart.sh", **NOTHING | given)
    assert code == 0, output
    (trained,) = commands(calls, "cli.train")
    assert trained["--model"].removeprefix(f"{ROOT}/").rstrip("/") == model
    assert (trained["--total_steps"], trained["--learning_rate"]) == STEPS[model]
    assert ("--max_input_length" in trained) == (model == TINY)
    assert trained["--train_dir"] == given.get("DATA_DIR", "data/skill_gym")
    assert trained.get("--taskvecs") == given.get("TASKVECS")


def test_the_conflict_gym_keeps_its_model_and_hyperparameters(scripts):
    for given in ({}, dict(DATA_DIR="gym"), dict(MODEL=BASE)):
        _, calls, _ = scripts.run("train_routing_bart.sh", EMBEDDED_GYM="conflict", **NOTHING | given)
        (trained,) = commands(calls, "cli.train")
        assert trained["--model"] == given.get("MODEL", "data/conflict_gym_bart/width16")
        assert trained["--train_dir"] == given.get("DATA_DIR", "data/conflict_gym")
        assert (trained["--learning_rate"], trained["--train_batch_size"]) == ("3e-3", "128")


def test_a_model_among_the_flags_selects_the_hyperparameters(scripts):
    write_embedded_gym(scripts)
    _, calls, output = scripts.run("train_routing_bart.sh", "--model", BASE, **NOTHING)
    (trained,) = commands(calls, "cli.train")
    assert (trained["--model"], trained["--total_steps"]) == (BASE, "30000")
    assert output.startswith(f"model {BASE}; ")


CALLING = {
    "run_two_stage.sh": {},
    "run_fisher_two_stage.sh": {},
    "run_gradient_routing.sh": dict(EMBEDDED_GYM="skill"),
    "compare_task_vectors.sh": dict(KINDS="trained text", SEEDS="1"),
    "compare_routings.sh": dict(VARIANTS="straight_through gradient_routing two_stage", SEEDS="1"),
    "reproduce_paper.sh": dict(VARIANTS="text", STARTS="direct", JOBS="1"),
}


@pytest.mark.parametrize(
    ("script", "model"),
    [*((script, TINY) for script in CALLING), *((script, BASE) for script in [*CALLING][:3])],
)
def test_scripts_that_call_others_with_data_keep_the_model_of_their_user(scripts, script, model):
    """They pass on task vectors, a split or a gym also if their user gave none."""
    own = CALLING[script] | ({} if model == TINY else dict(DATA_DIR=str(scripts.gym)))
    write_embedded_gym(scripts)
    code, calls, output = scripts.run(script, finishes=True, **NOTHING | own)
    assert code == 0, output
    models = {
        call["--model"]
        for module in ("cli.train", "cli.merge", "task_emb.fisher", "task_emb.text", "cli.finetune")
        for call in commands(calls, module)
        if "--model" in call
    }
    assert models == {model}
    assert {"--max_input_length" in call for call in commands(calls, "--do_train")} == {model == TINY}


# ---- the second stage


def test_the_second_stage_has_the_model_and_settings_of_its_checkpoint(scripts):
    """Also if its user repeats the data, but not the MODEL of a trial."""
    for name, sizes, model in (("trial", {}, TINY), ("real", dict(vocab_size=50265), BASE)):
        for place in ("stage1/best", "init"):
            write_config(scripts.folder / f"models/{name}" / place, **sizes)
        own = NOTHING | dict(DATA_DIR="gym", OUTPUT_DIR=f"models/{name}")
        code, calls, output = scripts.run("run_merged_fisher128freeze_1e-5.sh", **own)
        assert code == 0, output
        (stage2,) = commands(calls, "cli.train")
        assert stage2["--total_steps"] == {TINY: "1000", BASE: "60000"}[model]
        assert output.startswith(f"checkpoint models/{name}/init, hyperparameters of {model}; gym gym, ")
        own |= dict(STAGE1=f"models/{name}/stage1")
        (merged,) = commands(scripts.run("build_a_checkpoint2.sh", **own)[1], "cli.merge")
        assert merged["--model"] == model


# ---- the model of a checkpoint

LARGE_SIZES = dict(vocab_size=50265, d_model=1024, encoder_layers=12, decoder_layers=12)
FROM_BART = dict(initialize_from_vanilla=True)
PLACES = {  # files of a place: (place, model)
    ("moe/best/config.json",): ("moe", TINY),
    ("ckpt/best/config.json",): ("ckpt/best", TINY),
    ("no_best/last/config.json",): ("no_best", TINY),
    ("not_begun/init/config.json",): ("not_begun", TINY),
    ("published/config.json",): ("published", TINY),
    ("saved/config.json", "saved/weights.pt"): ("saved/weights.pt", TINY),
    ("vocab/best/config.json", "vocab_size"): ("vocab", BASE),
    ("width/config.json", "d_model"): ("width", BASE),
    ("published_large/config.json", "LARGE"): ("published_large", LARGE),
    ("large/best/config.json", "LARGE", "large/run.json"): ("large", "own/large"),
    ("large_best/best/config.json", "LARGE", "large_best/run.json"): ("large_best/best", "own/large"),
    ("stage2/best/config.json", "stage2/run.json", "stage2/init/merge.json"): ("stage2", "own/merged"),
    ("init/init/config.json", "init/init/merge.json"): ("init/init", "own/merged"),
    ("continued/best/config.json", "continued/run.json"): ("continued", TINY),
    ("conflict/config.json", "CONFLICT"): ("conflict", CONFLICT),
    ("weights.pt",): ("weights.pt", BASE),
    (): ("owner/name", BASE),
    ("x",): ("missing", BASE),
}
CHANGED = {"vocab_size": dict(vocab_size=50265), "d_model": dict(d_model=64), "LARGE": LARGE_SIZES}
CHANGED |= {"CONFLICT": dict(d_model=16)}


def write_recorded(path, model, **settings):
    """Writes run.json or merge.json as the commands do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    command = {"command": "python -m routing_moe.cli.train --model wrong"}
    path.write_text(json.dumps({"settings": {"seed": 1, "model": model} | settings} | command, indent=1))


def test_the_model_of_a_checkpoint_is_the_recorded_one_else_it_follows_from_the_sizes(scripts):
    """A run that did not start from plain BART records the default of --model, which it did not read."""
    write_config(scripts.folder / CONFLICT, d_model=16)
    for files in PLACES:
        changed = next((CHANGED[name] for name in files if name in CHANGED), {})
        for path in (scripts.folder / name for name in files if name not in CHANGED):
            if path.name == "config.json":
                write_config(path.parent, **changed)
            elif path.name == "run.json":
                starts = dict(initialize_from_vanilla=bool(changed))
                write_recorded(path, "own/large" if changed else BASE, **starts)
            elif path.name == "merge.json":
                write_recorded(path, "own/merged")
            else:
                path.touch()
    places = [place for place, _ in PLACES.values()]
    command = 'source example_scripts/setup.sh; for place in "$@"; do base_of "$place"; done'
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command, "", *places], cwd=scripts.folder,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert dict(zip(places, done.stdout.split(), strict=True)) == dict(PLACES.values())


def test_both_stages_and_their_merge_have_the_model_of_stage_1(scripts):
    write_config(scripts.folder / "large/best", **LARGE_SIZES)
    write_recorded(scripts.folder / "large/run.json", LARGE, **FROM_BART)
    own = NOTHING | dict(DATA_DIR="gym", STAGE1="large", OUTPUT_DIR="out")
    for script in ("build_a_checkpoint2.sh", "run_two_stage.sh"):
        code, calls, output = scripts.run(script, finishes=True, **own)
        assert code == 0, output
        (merged,) = commands(calls, "cli.merge")
        assert merged["--model"] == LARGE
        assert f"routes of large, experts from {LARGE}; output in out/init" in output
    assert output.startswith(f"model {LARGE}; gym gym, ")
    assert f"checkpoint out/init, hyperparameters of {LARGE}; gym gym, " in output


# ---- fine-tuning

GRID = ("--model", "--learning_rate_list", "--bsz_list", "--total_steps", "--max_input_length", "--num_beams")
SMALL_GRID = dict(zip(GRID, [TINY, "3e-4 1e-3", "4 8", "100", "128", "1"], strict=True))
CONFLICT_GRID = dict(zip(GRID, [CONFLICT, "1e-3 3e-3", "16", "60", "32", "1"], strict=True))
PUBLISHED_GRID = dict(zip(GRID, [BASE, "1e-5 2e-5 5e-5", "2 4 8", "1000"], strict=False))


def grid_of(call: dict[str, str]) -> dict[str, str]:
    return {name: call[name] for name in GRID if name in call}


@pytest.mark.parametrize(
    ("checkpoint", "given", "grid"),
    [
        ("None", {}, SMALL_GRID),
        ("None", dict(SPLIT="data/skill_gym/split.json"), PUBLISHED_GRID),
        ("owner/name", {}, PUBLISHED_GRID),
        ("moe", {}, SMALL_GRID),
        ("moe", dict(DATA_DIR="data/conflict_gym"), SMALL_GRID),
        ("routed", {}, CONFLICT_GRID),
        ("None", dict(EMBEDDED_GYM="conflict"), CONFLICT_GRID),
    ],
)
def test_fine_tuning_has_the_model_and_grid_of_the_checkpoints_base(scripts, checkpoint, given, grid):
    for gym in ("skill_gym", "conflict_gym"):
        write_embedded_gym(scripts, gym)
    write_config(scripts.folder / "moe/best")
    write_recorded(scripts.folder / "routed/run.json", CONFLICT, **FROM_BART)
    code, calls, output = scripts.run("finetune_a_list_of_tasks.sh", "a", checkpoint, "x", **NOTHING | given)
    assert code == 0, output
    (tuned,) = commands(calls, "cli.finetune")
    assert grid_of(tuned) == grid
    assert f"grid of {grid['--model']}; gym data/" in output or checkpoint == "None"
    assert tuned["--checkpoint"] == checkpoint
    assert tuned["--max_grad_norm"] == ("16" if grid is CONFLICT_GRID else "0.1")
    gym = "data/conflict_gym" if grid is CONFLICT_GRID else given.get("DATA_DIR", "data/skill_gym")
    assert tuned["--task_dir"] == f"{gym}/a"
    assert any("conflict_gym.generate" in call for call in calls) == (grid is CONFLICT_GRID)
    assert "--predict_batch_size" not in tuned  # on a GPU it follows from its memory


def write_embedded_gym(scripts: Scripts, name="skill_gym") -> None:
    """Writes a train task, a test task, and folders for those of reproduce_paper.split.json."""
    gym, split = scripts.folder / f"data/{name}", ROOT / "example_scripts/reproduce_paper.split.json"
    for task in ("a", *json.loads(split.read_text())["test"]):
        (gym / task).mkdir(parents=True)
        (gym / task / f"{task}_16_1_train.tsv").write_text("x\ty\n")
    (gym / "split.json").write_text(json.dumps({"train": ["b"], "test": ["a"]}))


def test_a_given_model_and_grid_win_over_those_of_the_checkpoint(scripts):
    write_config(scripts.folder / "run/best")
    given = dict(MODEL=BASE, LEARNING_RATE_LIST="1e-2", TOTAL_STEPS="7")
    _, calls, _ = scripts.run("finetune_a_list_of_tasks_moe.sh", "test", "run", "x", **given)
    (tuned,) = commands(calls, "cli.finetune")
    changed = {"--learning_rate_list": "1e-2", "--total_steps": "7"}
    assert grid_of(tuned) == PUBLISHED_GRID | changed


def test_the_default_mixture_is_trained_only_if_nothing_is_given(scripts):
    write_embedded_gym(scripts)
    script = "finetune_a_list_of_tasks_moe.sh"
    code, calls, output = scripts.run(script, finishes=True, **NOTHING)
    assert code == 0, output
    (trained,), (tuned,) = commands(calls, "cli.train"), commands(calls, "cli.finetune")
    assert trained["--output_dir"] == tuned["--init_dir"] == "models/routing_bart"
    assert trained["--model"] == tuned["--model"] == TINY
    assert (trained["--total_steps"], tuned["--total_steps"]) == ("1000", "100")
    shutil.rmtree(scripts.folder / "models")
    for given in (dict(DATA_DIR=str(scripts.gym)), dict(MODEL=BASE)):
        _, calls, _ = scripts.run(script, "test", **NOTHING | given)
        assert commands(calls, "cli.train") == []
        assert commands(calls, "cli.finetune")[0]["--model"] == BASE
