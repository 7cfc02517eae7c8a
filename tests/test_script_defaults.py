"""What scripts train by default: the model, the hyperparameters that go with it, what they print first."""

import json
import shlex
import shutil

import pytest
from recording_scripts import Scripts
from tiny_runs import ROOT

TINY, BASE = "task/skill_gym/tiny_bart", "facebook/bart-base"
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
    code, calls, output = scripts.run(script, finishes=True, really="skill_gym.generate", **NOTHING | own)
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
        assert output.startswith(f"model in models/{name} with the settings of {model}; gym gym, ")
        own |= dict(STAGE1=f"models/{name}/stage1")
        (merged,) = commands(scripts.run("build_a_checkpoint2.sh", **own)[1], "cli.merge")
        assert merged["--model"] == model


# ---- fine-tuning

MADE = {
    "a run": ("runs/moe/best", "runs/moe"),
    "a checkpoint": ("runs/moe/best", "runs/moe/best"),
    "a run without best": ("runs/moe/last", "runs/moe"),
    "a second stage that has not begun": ("runs/moe/init", "runs/moe"),
    "a published run": ("runs/moe", "runs/moe"),
}


@pytest.mark.parametrize(
    ("made", "sizes"),
    [
        *((made, {}) for made in MADE),
        ("a run", dict(vocab_size=50265)),
        ("a published run", dict(d_model=64)),
    ],
)
def test_fine_tuning_has_the_model_and_grid_of_the_checkpoints_base(scripts, made, sizes):
    place, checkpoint = MADE[made]
    write_config(scripts.folder / place, **sizes)
    own = NOTHING | dict(DATA_DIR=str(scripts.gym))
    code, calls, output = scripts.run("finetune_a_list_of_tasks_moe.sh", "test", checkpoint, "x", **own)
    assert code == 0, output
    (tuned,) = commands(calls, "cli.finetune")
    small = dict(zip(GRID, [TINY, "3e-4 1e-3", "4 8", "100", "128"], strict=True))
    published = dict(zip(GRID, [BASE, "1e-5 2e-5 5e-5", "2 4 8", "1000"], strict=False))
    assert {name: tuned[name] for name in GRID if name in tuned} == (published if sizes else small)


GRID = ("--model", "--learning_rate_list", "--bsz_list", "--total_steps", "--max_input_length")


@pytest.mark.parametrize(
    ("checkpoint", "given", "model"),
    [
        ("None", {}, TINY),
        ("None", dict(SPLIT="data/skill_gym/split.json"), BASE),
        ("owner/name", {}, BASE),
        ("missing", {}, BASE),
        ("weights.pt", {}, BASE),
        ("saved/weights.pt", {}, TINY),
    ],
)
def test_other_starts_have_the_published_grid(scripts, checkpoint, given, model):
    write_embedded_gym(scripts)
    write_config(scripts.folder / "saved")
    for name in ("weights.pt", "saved/weights.pt"):
        (scripts.folder / name).touch()
    code, calls, output = scripts.run("finetune_a_list_of_tasks.sh", "a", checkpoint, "x", **NOTHING | given)
    assert code == 0, output
    (tuned,) = commands(calls, "cli.finetune")
    assert (tuned["--model"], tuned["--total_steps"]) == (model, {TINY: "100", BASE: "1000"}[model])
    assert tuned["--checkpoint"] == checkpoint
    assert "--predict_batch_size" not in tuned  # on a GPU it follows from its memory


def write_embedded_gym(scripts: Scripts) -> None:
    gym = scripts.folder / "data/skill_gym"
    (gym / "a").mkdir(parents=True)
    (gym / "a/a_16_1_train.tsv").write_text("x\ty\n")
    (gym / "split.json").write_text(json.dumps({"train": ["b"], "test": ["a"]}))


def test_a_given_model_and_grid_win_over_those_of_the_checkpoint(scripts):
    write_config(scripts.folder / "run/best")
    given = dict(MODEL=BASE, LEARNING_RATE_LIST="1e-2", TOTAL_STEPS="7")
    _, calls, _ = scripts.run("finetune_a_list_of_tasks_moe.sh", "test", "run", "x", **given)
    (tuned,) = commands(calls, "cli.finetune")
    assert [tuned[name] for name in GRID[:4]] == [BASE, "1e-2", "2 4 8", "7"]


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
