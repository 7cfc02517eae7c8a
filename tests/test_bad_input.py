"""Errors for mistakes in files: they name the file, the line and what is right.

Every case uses the command line, must end with exit code 2 and must change no file.
"""

import pickle

import numpy as np
import pytest
import torch
from mistakes import assert_fault, complaint
from tiny_runs import ROWS, run, write_bart
from transformers import AutoTokenizer, BartForConditionalGeneration, T5Config

from routing_moe import RoutingBartConfig

pytestmark = pytest.mark.usefixtures("no_gpu")


class Trap:
    """Fails the test if it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


# ---- files of the gym and of the start


def no_answer(place):
    place.write(place.gym / "count/count_12_13_train.tsv", "one\t1\ntwo\nthree\t3\n")


def other_family(place):
    T5Config().save_pretrained(place.bart)


def not_a_number_in_pearson(place):
    place.write(place.gym / "count/count_12_100_dev.tsv", "one\t1\ntwo\ttwo\n")


def small_vocabulary(place):
    BartForConditionalGeneration(write_config(place, vocab_size=50)).save_pretrained(place.bart)


def write_config(place, **fields):
    config = BartForConditionalGeneration.config_class.from_pretrained(place.bart)
    config.update(fields)
    return config


FILES = {
    "a gym without a split": (
        lambda place: (place.gym / "split.json").unlink(),
        {},
        "--train_dir <gym> has no split.json; name one with --custom_tasks_splits",
    ),
    "a misspelt task": (
        lambda place: place.split(train=["colour", "cuont"]),
        {},
        "<gym>/split.json: no task 'cuont' in <gym>; did you mean 'count'? (4 tasks there, one folder each)",
    ),
    "a split without train tasks": (
        lambda place: place.split(trian=["colour"]),
        {},
        '<gym>/split.json has no "train" key (it has: trian)',
    ),
    "an empty train section": (
        lambda place: place.split(train=[]),
        {},
        "<gym>/split.json: the train section is empty",
    ),
    "a broken split": (
        lambda place: place.write(place.gym / "split.json", '{"train": ["colour",\n]}'),
        {},
        "<gym>/split.json is not valid JSON",
        "(line 2, column 1)",
    ),
    "a test task that is trained on": (
        lambda place: place.split(train=["colour", "count"], test=["colour"]),
        {},
        '<gym>/split.json: in "train" and in "test": colour',
    ),
    "a missing dev file": (
        lambda place: (place.gym / "count/count_12_100_dev.tsv").unlink(),
        {},
        "<gym>/count/count_12_100_dev.tsv: no such file",
    ),
    "a folder in place of a file": (
        lambda place: (place.gym / "count/count_12_7_train.tsv").mkdir(),
        {},
        "<gym>/count/count_12_7_train.tsv: cannot be read (Is a directory)",
    ),
    "a line without an answer": (
        no_answer,
        {},
        "count_12_13_train.tsv:2: no answer (no tab in the line)",
        "--skip_malformed leaves it out",
    ),
    "a metric that does not exist": (
        lambda place: place.write(place.gym / "metrics.json", dict.fromkeys(ROWS, "EMM")),
        {},
        "<gym>/metrics.json: unknown metric 'EMM' for task 'colour'; did you mean 'EM'?",
    ),
    "a task without a metric": (
        lambda place: place.write(place.gym / "metrics.json", {}),
        {},
        "no metric known for task 'colour': write {\"colour\": metric} into <gym>/metrics.json",
    ),
    "an answer that the metric cannot use": (
        not_a_number_in_pearson,
        {},
        "<gym>/count/count_12_100_dev.tsv",
        "the answer 'two' is not a number, which Pearson-Correlation needs",
    ),
    "a broken ontology": (
        lambda place: place.write(place.gym / "ontology.json", {"words": ["colour"]}),
        {},
        '<gym>/ontology.json: "words" must be an object {subcategory: [task, ...]}',
    ),
    "another family of models": (
        other_family,
        {},
        "--model <bart> is a 't5' model; experts can only be made from a 'bart' model",
    ),
    "a config.json of wrong types": (
        lambda place: place.write(place.bart / "config.json", {"model_type": "bart", "d_model": "wide"}),
        {},
        "--model <bart>/config.json: not a valid configuration (",
        "'d_model'",
    ),
    "no weights": (
        lambda place: (place.bart / "model.safetensors").unlink(),
        {},
        "--model <bart>: no plain BART can be loaded from there",
        "no file named model.safetensors",
    ),
    "no tokenizer": (
        lambda place: [path.unlink() for path in place.bart.glob("tokenizer*")],
        {},
        "<bart> has no tokenizer files",
    ),
    "a tokenizer larger than the vocabulary": (
        small_vocabulary,
        {},
        "--model <bart>: its tokenizer has",
        "more than the 50 embeddings of its model; they do not match",
    ),
    "task vectors without a task": (
        lambda place: place.vectors(["colour", "count"]),
        dict(taskvecs="<here>/vectors"),
        "--taskvecs <here>/vectors has no vector for opposite",
    ),
    "task vectors without an unseen task to predict": (
        lambda place: place.vectors(["colour", "count", "opposite"]),
        dict(taskvecs="<here>/vectors", do_predict=True, predict_split="test", task_vector="stored"),
        "--taskvecs <here>/vectors has no vector for plural",
    ),
    "task vectors in one row": (
        lambda place: place.vectors(vectors_ND=np.zeros(8)),
        dict(taskvecs="<here>/vectors"),
        "<here>/vectors/task_vecs.npy holds float64 of shape (8,)",
        "it must be a (tasks, dimension) array of floats",
    ),
    "task vectors for another number of tasks": (
        lambda place: place.vectors(vectors_ND=np.zeros((3, 8))),
        dict(taskvecs="<here>/vectors"),
        "<here>/vectors/id2task.json names 4 tasks, but <here>/vectors/task_vecs.npy has 3 rows",
    ),
    "task vectors of unnumbered tasks": (
        lambda place: (place.vectors(), place.write(place.folder / "vectors/id2task.json", "[1, 2]")),
        dict(taskvecs="<here>/vectors"),
        "--taskvecs <here>/vectors/id2task.json holds a list",
    ),
    "task vectors that hold a pickle": (
        lambda place: place.vectors(vectors_ND=np.array([[Trap()] * 8] * 4)),
        dict(taskvecs="<here>/vectors"),
        "<here>/vectors/task_vecs.npy: not a NumPy array file",
    ),
    "task vectors that are not finite": (
        lambda place: place.vectors(vectors_ND=np.full((4, 8), np.nan)),
        dict(taskvecs="<here>/vectors"),
        "<here>/vectors/task_vecs.npy: row 0 (colour) has a value that is not finite",
    ),
    "task vectors of another width than the flag": (
        lambda place: place.vectors(),
        dict(taskvecs="<here>/vectors", taskvecs_dim=9),
        "--taskvecs_dim is 9, but the vectors of <here>/vectors have 8 dimensions",
    ),
    "a vanilla checkpoint that is a pickle": (
        lambda place: place.write(place.folder / "x.pt", pickle.dumps(Trap(), protocol=2)),
        dict(vanilla_checkpoint="<here>/x.pt"),
        "--vanilla_checkpoint <here>/x.pt: not a checkpoint of a plain BART",
    ),
    "a vanilla checkpoint that is not a state dict": (
        lambda place: torch.save([1, 2], place.folder / "x.pt"),
        dict(vanilla_checkpoint="<here>/x.pt"),
        "--vanilla_checkpoint <here>/x.pt: not a checkpoint of a plain BART",
    ),
    "a vanilla checkpoint of another width": (
        lambda place: write_bart(place.folder / "wide", d_model=32),
        dict(vanilla_checkpoint="<here>/wide"),
        "--vanilla_checkpoint <here>/wide: these are not the weights of a plain BART with 2+1 layers",
    ),
    "a vanilla checkpoint of another depth": (
        lambda place: write_bart(place.folder / "deep", decoder_layers=2),
        dict(vanilla_checkpoint="<here>/deep"),
        "--vanilla_checkpoint <here>/deep: these are not the weights of a plain BART with 2+1 layers",
        "unexpected: model.decoder.layers.1.",
    ),
    "a vanilla checkpoint that is a file of a run": (
        lambda place: (
            RoutingBartConfig().save_pretrained(place.folder / "run"),
            place.write(place.folder / "run/model.safetensors", b""),
        ),
        dict(vanilla_checkpoint="<here>/run/model.safetensors"),
        "--vanilla_checkpoint <here>/run/model.safetensors: a file of a run's checkpoint; name its folder",
    ),
    "a vanilla checkpoint without the best one": (
        lambda place: RoutingBartConfig().save_pretrained(place.folder / "run/last"),
        dict(vanilla_checkpoint="<here>/run"),
        "has no checkpoint 'best'; choose one with --vanilla_checkpoint <here>/run/NAME: last",
    ),
    "a vanilla checkpoint that is a mixture": (
        lambda place: RoutingBartConfig(num_experts=2).save_pretrained(place.folder / "mixture"),
        dict(vanilla_checkpoint="<here>/mixture"),
        "--vanilla_checkpoint <here>/mixture is a mixture of 2 experts; give a plain BART, or a run with one",
    ),
    "a vanilla checkpoint that lacks a part": (
        lambda place: torch.save(
            {
                name: tensor
                for name, tensor in BartForConditionalGeneration.from_pretrained(place.bart)
                .state_dict()
                .items()
                if "layernorm_embedding" not in name
            },
            place.folder / "x.pt",
        ),
        dict(vanilla_checkpoint="<here>/x.pt"),
        "--vanilla_checkpoint <here>/x.pt: these are not the weights",
        "missing: model.encoder.layernorm_embedding.weight",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_wrong_file_is_an_error(name, fresh, capsys):
    change, changed, *fragments = FILES[name]
    change(fresh)
    assert_fault(complaint(fresh, capsys, **changed), *map(fresh.filled_in, fragments))


def test_all_faults_are_reported_together(fresh, capsys):
    no_answer(fresh)
    fresh.split(train=["colour", "count", "nosuch"], test=[])
    lines = complaint(
        fresh,
        capsys,
        learning_rate=-1,
        predict_samples="999",
        model="<here>/x",
        taskvecs="<here>/y",
        num_beams=0,
    )
    for fragment in (
        "--learning_rate is -1.0",
        "--num_beams is 0",
        "split.json: no task 'nosuch'",
        "count_12_13_train.tsv:2: no answer",
        "--predict_samples is '999'",
        f"--model {fresh.folder}/x: no such folder",
        f"--taskvecs {fresh.folder}/y is not a task-vector folder",
    ):
        assert_fault(lines, fragment)
    assert sum(line.startswith("error: ") for line in lines) == 7


def test_malformed_lines_can_be_skipped(fresh):
    no_answer(fresh)
    assert run(fresh.gym, fresh.bart, fresh.out, skip_malformed=True, total_steps=1) == 0
    assert AutoTokenizer.from_pretrained(fresh.out / "best")(" x")["input_ids"]
