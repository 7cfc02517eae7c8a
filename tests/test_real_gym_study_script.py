"""real_gym_study.sh: equal steps of all variants, the flags of its commands, the BART that it makes."""

import shlex

import pytest
from recording_scripts import Scripts

from routing_moe.config.finetune import FinetuneSettings
from routing_moe.config.flags import parse
from routing_moe.config.train import TrainSettings
from task.task_emb.fisher import FisherSettings
from task.task_emb.gradient import GradientSettings

SCRIPT = "real_gym_study.sh"
SMALL = dict(OUTPUT_DIR="out", DIM="2", TOTAL_STEPS="13", RECOVERY="category", JOBS="1")
KINDS = {
    "routing_moe.cli.train": TrainSettings,
    "routing_moe.cli.finetune": FinetuneSettings,
    "task.task_emb.fisher": FisherSettings,
    "task.task_emb.gradient": GradientSettings,
}


def parsed(calls: list[str], module: str, *parts: str) -> dict[str, dict]:
    """Returns {output folder below out/: flags, which must exist} of the commands with these words."""
    found = {}
    for call in calls:
        _, name, *flags = shlex.split(call)
        if name == module and all(part in flags for part in parts):
            given = parse(KINDS[module], flags)
            found[str(given["output_dir"]).removeprefix("out/")] = given
    return found


@pytest.fixture(scope="module")
def study(tmp_path_factory, world):
    """The recorded commands of a study of one seed in bf16."""
    scripts = Scripts(tmp_path_factory.mktemp("study"), world.gym, world.bart)
    leftover = dict(UPCYCLE="yes")  # only gradient_upcycled sets it
    code, calls, output = scripts.run(SCRIPT, finishes=True, MIXED_PRECISION="bf16", **SMALL | leftover)
    assert code == 0, output
    return calls


def test_all_variants_have_the_same_number_of_steps(study):
    trained = parsed(study, "routing_moe.cli.train", "--do_train")
    steps = {name.removeprefix("runs/"): given["total_steps"] for name, given in trained.items()}
    assert steps == {
        **dict.fromkeys(["multitask/seed42", "average/seed42", "task_random/seed42"], 13),
        **dict.fromkeys(["straight_through/seed42", "fisher_clusters/seed42", "ontology/seed42"], 13),
        "two_stage/seed42/stage1": 7,
        "two_stage/seed42": 6,
        "gradient_routing/seed42/dense": 5,
        "gradient_routing/seed42": 8,
        "gradient_upcycled/seed42/dense": 5,
        "gradient_upcycled/seed42": 8,
    }
    for given in trained.values():
        assert (given["do_lowercase"], given["max_input_length"], given["learning_rate"]) == (True, 192, 3e-4)
        assert (given["num_beams"], given["predict_max_examples"], given["seed"]) == (1, 100, 42)


def test_routers_alone_have_their_flags(study):
    trained = parsed(study, "routing_moe.cli.train", "--do_train")
    annealed = [name for name, given in trained.items() if given.get("minimum_tau") == 0.3]
    assert annealed == ["runs/straight_through/seed42", "runs/two_stage/seed42/stage1"]
    assert trained["runs/two_stage/seed42"]["router_lr"] == 0
    routes = {name: given["task_routes"] for name, given in trained.items() if "task_routes" in given}
    upcycled = {name for name, given in trained.items() if "vanilla_checkpoint" in given}
    assert upcycled == {"runs/gradient_upcycled/seed42"}
    assert routes == {
        "runs/gradient_routing/seed42": "clusters:8",
        "runs/gradient_upcycled/seed42": "clusters:8",
        "runs/fisher_clusters/seed42": "clusters:8",
        "runs/ontology/seed42": "ontology",
    }


def test_unseen_tasks_are_routed_by_the_vectors_of_their_samples(study):
    gradient = parsed(study, "task.task_emb.gradient")
    each, upcycled = (f"runs/gradient_{name}/seed42/vectors_each" for name in ("routing", "upcycled"))
    assert list(gradient) == [name for own in (each, upcycled) for name in (own.removesuffix("_each"), own)]
    assert (gradient[each]["samples"], gradient[each]["tasks"]) == ("each", ("test",))
    fisher = parsed(study, "task.task_emb.fisher")
    assert {given["total_steps"] for given in fisher.values()} == {30}
    assert all(given["do_lowercase"] for given in (gradient | fisher).values())
    tuned = parsed(study, "routing_moe.cli.finetune")
    assert len(tuned) == 10
    vectors = {name.split("/")[1]: given["taskvecs"] for name, given in tuned.items() if "taskvecs" in given}
    assert vectors == {
        "gradient_routing": f"out/{each}",
        "gradient_upcycled": f"out/{upcycled}",
        "fisher_clusters": "out/vectors/fisher2_each",
    }
    for given in tuned.values():
        assert (given["samples"], given["learning_rate_list"]) == (("100", "13", "21"), [1e-4, 3e-4])
        assert (given["bsz_list"], given["predict_max_examples"]) == ([8], 200)
    ranked = parsed(study, "routing_moe.cli.train", "--predict_split", "rank")
    assert len(ranked) == 9
    assert {given["predict_max_examples"] for given in ranked.values()} == {300}


def test_one_precision_for_all_commands(study, scripts):
    groups = [parsed(study, module) for module in KINDS if module != "routing_moe.cli.train"]
    groups += [parsed(study, "routing_moe.cli.train", flag) for flag in ("--do_train", "--predict_split")]
    for group in groups:
        assert {given["mixed_precision"] for given in group.values()} == {"bf16"}
    code, _, output = scripts.run(SCRIPT, MIXED_PRECISION="bf61", **SMALL)
    assert code == 2
    assert "error: MIXED_PRECISION: bf61 is not no, auto, bf16 or fp16" in output
    code, _, output = scripts.run(SCRIPT, MIXED_PRECISION="fp16", **SMALL)
    assert code == 2
    assert "error: MIXED_PRECISION: fp16 is too small for the gradients of gradient_routing and" in output


def test_the_bart_is_made_after_the_checks_if_none_is_given(scripts):
    own = SMALL | dict(MODEL="", EVAL_PERIOD="3", LEARNING_RATE="1")
    build, built = scripts.folder / "example_scripts/english_bart.sh", scripts.folder / "built"
    variables = "$OUTPUT_DIR $WARM_UP_STEPS ${DATA_DIR:+gym} $EVAL_PERIOD${LEARNING_RATE:-}"
    build.write_text(f'echo "{variables}" >built\nexit 1\n')
    code, _, _ = scripts.run(SCRIPT, **own, SEEDS="one")
    assert (code, built.exists()) == (2, False)
    for flags, changed, made in [
        ([], {}, "out/english_bart 1600 gym \n"),
        ([], {"DENOISING_STEPS": "7"}, "out/english_bart 7 gym \n"),
        (["--dry_run"], {}, "out/english_bart 0 gym \n"),
    ]:
        code, _, _ = scripts.run(SCRIPT, *flags, **own, **changed)
        assert (code, built.read_text()) == (1, made)
    build.write_text("")
    code, _, output = scripts.run(SCRIPT, finishes=True, **own, VARIANTS="multitask", STARTS="direct")
    assert code == 0, output
    settings = (scripts.folder / "out/settings").read_text().splitlines()
    assert "MODEL=out/english_bart/warm_bart" in settings
    own |= dict(OUTPUT_DIR="other", DENOISING_STEPS="0")
    code, calls, output = scripts.run(SCRIPT, finishes=True, **own, VARIANTS="multitask", STARTS="direct")
    assert parsed(calls, "routing_moe.cli.train", "--do_train")["other/runs/multitask/seed42"]["model"] == (
        "other/english_bart/bart"
    )


def test_wrong_variables_are_errors(scripts):
    code, calls, output = scripts.run(SCRIPT, DATA_DIR="")
    assert (code, calls) == (2, [])
    assert "error: DATA_DIR is not set" in output
    code, _, output = scripts.run(SCRIPT, TOTAL_STEPS="few")
    assert (code, output) == (2, "error: TOTAL_STEPS is 'few'; it must be a whole number of at least 1\n")
    code, _, output = scripts.run(SCRIPT, DENOISING_STEPS="some")
    assert (code, output) == (2, "error: DENOISING_STEPS is 'some'; it must be a whole number\n")
