"""Wrong input of training and merging: one clear error that names flag and value, or file and line.

A case is (changed flags, parts of the message, damage before). Nothing is written, and there is no traceback.
"""

import importlib.util
import pickle

import numpy as np
import pytest
from mistakes import check, complaint
from test_task_routes import FIXED, FORMS
from tiny_runs import TRAIN_TASKS, write_bart
from transformers import BartForConditionalGeneration, T5Config

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


@cases(FLAGS)
def test_a_wrong_flag_is_an_error(changed, message, damage, fresh, capsys):
    check(fresh, capsys, "train", changed, message, damage)


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


@cases(FILES, VECTOR_FILES, VANILLA, STARTS)
def test_a_wrong_file_is_an_error(changed, message, damage, fresh, capsys):
    check(fresh, capsys, "train", changed, message, damage)


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


@cases(ROUTES)
def test_wrong_routes_in_training_are_an_error(changed, message, damage, fresh, capsys):
    check(fresh, capsys, "train", changed, message, damage)
