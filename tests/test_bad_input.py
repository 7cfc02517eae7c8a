"""What a user is told about each mistake: the flag as typed or the file and line, and what would be right.

Every case goes through the command line, must end with exit code 2 and must leave every file as it was.
"""

import importlib.util
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import ROWS, contents, run, write_bart, write_gym
from transformers import AutoTokenizer, BartForConditionalGeneration, T5Config

from routing_moe.task_vectors import save_task_vectors


class Place:
    """A folder for one case: a gym, a BART, an output folder that does not exist yet or holds a run."""

    def __init__(self, folder: Path, gym: Path, bart: Path):
        self.folder, self.gym, self.bart, self.out = folder, gym, bart, folder / "out"

    def write(self, path: Path, content: str | bytes | dict) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, dict):
            content = json.dumps(content)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    def split(self, **sections) -> None:
        self.write(self.gym / "split.json", sections)

    def vectors(self, names=tuple(ROWS), vectors_ND=None) -> None:
        (self.folder / "vectors").mkdir()
        save_task_vectors(self.folder / "vectors", names, np.zeros((len(names), 8)))
        if vectors_ND is not None:
            np.save(self.folder / "vectors/task_vecs.npy", vectors_ND, allow_pickle=True)

    def filled_in(self, text):
        """Paths of this place for <out>, <gym>, <bart>, <here> in a flag's value or an expected message."""
        if not isinstance(text, str):
            return text
        for name in ("out", "gym", "bart"):
            text = text.replace(f"<{name}>", str(getattr(self, name)))
        return text.replace("<here>", str(self.folder))


class Trap:
    """Says so loudly if it is ever unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A gym, a BART and a finished one-step run; not to be changed."""
    folder = tmp_path_factory.mktemp("originals")
    place = Place(folder, write_gym(folder / "gym"), write_bart(folder / "bart"))
    assert run(place.gym, place.bart, place.out, total_steps=1) == 0
    return place


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def fresh(originals, tmp_path):
    """Copies of gym and BART, and no output folder."""
    gym, bart = (Path(shutil.copytree(o, tmp_path / o.name)) for o in (originals.gym, originals.bart))
    return Place(tmp_path, gym, bart)


@pytest.fixture
def with_run(originals, tmp_path):
    """The originals' gym and BART, and a copy of the run of one step."""
    place = Place(tmp_path, originals.gym, originals.bart)
    shutil.copytree(originals.out, place.out)
    return place


def complaint(place: Place, capsys, **changed) -> list[str]:
    """The lines of what a user is told, after the checks that every mistake must pass."""
    before, capsys_before = contents(place.folder), capsys.readouterr()
    assert "Traceback" not in capsys_before.err
    existed = place.out.exists()
    changed = {name: place.filled_in(value) for name, value in changed.items()}
    output_dir = Path(changed.pop("output_dir", place.out))
    try:
        code = run(place.gym, place.bart, output_dir, **changed)
    except SystemExit as stopped:  # argparse's own
        code = stopped.code
    told = capsys.readouterr()
    assert code == 2, told.err
    assert "Traceback" not in told.err
    assert contents(place.folder) == before
    assert place.out.exists() == existed
    lines = [line for line in told.err.splitlines() if not line.startswith("usage:")]
    print("\n".join(lines))  # shown when a test fails
    return lines


def assert_told(lines: list[str], *fragments: str) -> None:
    """All fragments are in one fault."""
    faults = "\n".join(lines).split("error: ")
    assert any(all(fragment in fault for fragment in fragments) for fault in faults), lines


# ---- flags alone

FLAGS = {
    "a learning rate below 0": (dict(learning_rate=-1), "--learning_rate is -1.0; it must be 0 or greater"),
    "a learning rate that is no number": (dict(learning_rate="nan"), "--learning_rate is nan; it must be 0"),
    "an infinite learning rate": (dict(learning_rate="inf"), "--learning_rate is infinite"),
    "a word for a number": (dict(router_lr="high"), "argument --router_lr: invalid float value: 'high'"),
    "a batch of nothing": (dict(train_batch_size=0), "--train_batch_size is 0; it must be at least 1"),
    "a temperature that would rise": (
        dict(minimum_tau=3, initial_tau=2),
        "--minimum_tau is 3.0, above --initial_tau 2.0; the temperature falls",
    ),
    "a probability of 2": (
        dict(exploration_epsilon=2),
        "--exploration_epsilon is 2.0; it must be from 0 to 1",
    ),
    "a misspelt mode": (
        dict(router_mode="gumbel_sofmax_st"),
        "--router_mode is 'gumbel_sofmax_st'; choose from softmax, gumbel_softmax, gumbel_softmax_st; "
        "did you mean 'gumbel_softmax_st'?",
    ),
    "a router that does not exist": (
        dict(router_nn_type="liner"),
        "argument --router_nn_type: invalid choice",
    ),
    "a vanilla layer beyond the last": (
        dict(encoder_vanilla_layers="0,5"),
        "--encoder_vanilla_layers names [5]; the encoder has layers 0 to 1",
    ),
    "vanilla layers that are no numbers": (
        dict(decoder_vanilla_layers="first"),
        "argument --decoder_vanilla_layers: 'first' is not a comma-separated list of layer numbers",
    ),
    "no experts": (dict(num_experts=0), "--num_experts is 0; a layer needs at least 1 expert"),
    "a width that heads cannot share": (
        dict(router_nn_type="transformer", taskvecs_dim=6),
        "--taskvecs_dim is 6; a transformer router splits it into 4 heads",
    ),
    "inputs longer than the positions": (
        dict(max_input_length=2000),
        "--max_input_length is 2000, but <bart> has 32 positions",
    ),
    "outputs without room for a token": (
        dict(max_output_length=2),
        "--max_output_length is 2, must be at least 3 to hold a token of the text",
    ),
    "half precision without a GPU": (
        dict(mixed_precision="fp16"),
        "--mixed_precision is fp16, which needs a GPU",
    ),
    "a seed that is too large": (dict(seed=2**32), "--seed is 4294967296; it must be below 2**32"),
    "nothing to do": (dict(do_train=None), "nothing to do: give --do_train, --do_predict or both"),
    "two starts": (
        dict(checkpoint="<here>"),
        "--initialize_from_vanilla and --checkpoint both name a start; give one of them",
    ),
    "a start that is not asked for": (
        dict(initialize_from_vanilla=None, vanilla_checkpoint="<bart>"),
        "--vanilla_checkpoint has no effect without --initialize_from_vanilla",
    ),
    "no model folder": (dict(model="<here>/nowhere"), "--model <here>/nowhere: no such folder"),
    "no gym": (
        dict(train_dir="<here>/nowhere"),
        "--train_dir <here>/nowhere: no such folder, expected a gym",
    ),
    "no split": (
        dict(custom_tasks_splits="<here>/no.json"),
        "--custom_tasks_splits <here>/no.json: no such file",
    ),
    "no ontology": (dict(task_ontology="<here>/no.json"), "--task_ontology <here>/no.json: no such file"),
    "no task vectors": (
        dict(taskvecs="<gym>"),
        "--taskvecs <gym> is no task-vector folder: it lacks id2task.json",
    ),
    "no vanilla checkpoint": (
        dict(vanilla_checkpoint="<here>/x.pt"),
        "--vanilla_checkpoint <here>/x.pt: not found",
    ),
    "no checkpoint to start from": (
        dict(initialize_from_vanilla=None),
        "--output_dir <out> --checkpoint_name best: no checkpoint there",
        "to train from a plain BART give --initialize_from_vanilla",
    ),
    "no checkpoint where one is named": (
        dict(initialize_from_vanilla=None, checkpoint="<here>/nowhere"),
        "--checkpoint <here>/nowhere: no checkpoint there",
    ),
    "a sample that no task has": (
        dict(predict_samples="999"),
        "--predict_samples is '999': no such sample of colour, count, opposite; "
        "give all, first, or a seed such as 100",
    ),
    "a part of the split without tasks": (
        dict(do_predict=True, predict_split="dev"),
        "--predict_split is 'dev', a section that <gym>/split.json leaves empty",
    ),
    "a file as the output folder": (
        dict(output_dir="<gym>/split.json"),
        "<gym>/split.json is a file; name a folder",
    ),
    "an output folder inside a file": (
        dict(output_dir="<gym>/split.json/run"),
        "--output_dir <gym>/split.json/run: <gym>/split.json is a file; name a folder",
    ),
    "an abbreviated flag": (
        dict(learning="0.1"),
        "unrecognized arguments: --learning 0.1; did you mean '--learning_rate'?",
    ),
}


@pytest.mark.parametrize("name", FLAGS)
def test_a_wrong_flag(name, fresh, capsys):
    changed, *fragments = FLAGS[name]
    assert_told(complaint(fresh, capsys, **changed), *map(fresh.filled_in, fragments))


# ---- files of the gym and of the start


def no_answer(place):
    place.write(place.gym / "count/count_12_13_train.tsv", "one\t1\ntwo\nthree\t3\n")


def bad_utf8(place):
    place.write(place.gym / "count/count_12_13_train.tsv", b"one\t1\nna\xefve\t2\n")


def byte_order_mark(place):
    place.write(place.gym / "count/count_12_13_train.tsv", b"\xef\xbb\xbfone\t1\n")


def other_family(place):
    T5Config().save_pretrained(place.bart)


def not_a_number_in_pearson(place):
    place.write(place.gym / "count/count_12_100_dev.tsv", "one\t1\ntwo\ttwo\n")


def half_the_weights(place):
    weights = place.bart / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])


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
        "--train_dir <gym> has no split.json; name one by --custom_tasks_splits",
    ),
    "a misspelt task": (
        lambda place: place.split(train=["colour", "cuont"]),
        {},
        "<gym>/split.json: no task 'cuont' in <gym>; did you mean 'count'? (4 tasks there, one folder each)",
    ),
    "a split without train tasks": (
        lambda place: place.split(trian=["colour"]),
        {},
        '<gym>/split.json: has no "train" key (it has: trian)',
    ),
    "an empty train section": (
        lambda place: place.split(train=[]),
        {},
        "<gym>/split.json: the train section is empty",
    ),
    "a broken split": (
        lambda place: place.write(place.gym / "split.json", '{"train": ["colour",\n]}'),
        {},
        "<gym>/split.json: is not valid JSON",
        "(line 2, column 1)",
    ),
    "a test task that is trained on": (
        lambda place: place.split(train=["colour", "count"], test=["colour"]),
        {},
        '<gym>/split.json: in "train" and in "test": colour',
    ),
    "a dev file that is not there": (
        lambda place: (place.gym / "count/count_12_100_dev.tsv").unlink(),
        {},
        "<gym>/count/count_12_100_dev.tsv: no such file",
    ),
    "a folder for a file": (
        lambda place: (place.gym / "count/count_12_7_train.tsv").mkdir(),
        {},
        "<gym>/count/count_12_7_train.tsv: cannot be read (Is a directory)",
    ),
    "a line without an answer": (
        no_answer,
        {},
        "<gym>/count/count_12_13_train.tsv:2: no answer (no tab in the line)",
        "--skip_malformed leaves them out",
    ),
    "bytes that are not UTF-8": (
        bad_utf8,
        {},
        "<gym>/count/count_12_13_train.tsv:2: byte 3 of the line is not UTF-8",
    ),
    "a byte order mark": (
        byte_order_mark,
        {},
        "<gym>/count/count_12_13_train.tsv:1: starts with a byte order mark; save it as UTF-8 without BOM",
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
        '<gym>/ontology.json: "words" should hold {subcategory: [task, ...]}',
    ),
    "another family of models": (
        other_family,
        {},
        "--model <bart> is a 't5' model; the experts are made from a 'bart'",
    ),
    "a broken config.json": (
        lambda place: place.write(place.bart / "config.json", "{"),
        {},
        "--model <bart>: no model can be loaded from there",
        "not a valid JSON file",
    ),
    "a config.json of wrong types": (
        lambda place: place.write(place.bart / "config.json", {"model_type": "bart", "d_model": "wide"}),
        {},
        "--model <bart>: no model can be loaded from there",
        "'d_model'",
    ),
    "a folder without a config.json": (
        lambda place: (place.bart / "config.json").unlink(),
        {},
        "--model <bart>: no model can be loaded from there",
    ),
    "half of a weights file": (
        half_the_weights,
        {},
        "--model <bart>: no plain BART can be loaded from there",
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
        "<bart>: has no tokenizer files",
    ),
    "a tokenizer larger than the vocabulary": (
        small_vocabulary,
        {},
        "--model <bart>: its tokenizer has",
        "more than the 50 embeddings of its model; they do not belong together",
    ),
    "task vectors without a task": (
        lambda place: place.vectors(["colour", "count"]),
        dict(taskvecs="<here>/vectors"),
        "--taskvecs <here>/vectors has no vector for opposite",
    ),
    "task vectors without an unseen task to predict": (
        lambda place: place.vectors(["colour", "count", "opposite"]),
        dict(taskvecs="<here>/vectors", do_predict=True, predict_split="test"),
        "--taskvecs <here>/vectors has no vector for plural",
    ),
    "task vectors in one row": (
        lambda place: place.vectors(vectors_ND=np.zeros(8)),
        dict(taskvecs="<here>/vectors"),
        "<here>/vectors/task_vecs.npy: holds float64 of shape (8,)",
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
        "--taskvecs <here>/vectors/id2task.json: holds a list",
    ),
    "task vectors that hold a pickle": (
        lambda place: place.vectors(vectors_ND=np.array([[Trap()] * 8] * 4)),
        dict(taskvecs="<here>/vectors"),
        "<here>/vectors/task_vecs.npy: not a NumPy array file",
    ),
    "task vectors that are not finite": (
        lambda place: place.vectors(vectors_ND=np.full((4, 8), np.nan)),
        dict(taskvecs="<here>/vectors"),
        "<here>/vectors/task_vecs.npy: row 0 (colour) holds a value that is not finite",
    ),
    "task vectors of another width than the flag": (
        lambda place: place.vectors(),
        dict(taskvecs="<here>/vectors", taskvecs_dim=9),
        "--taskvecs_dim is 9, but the vectors of <here>/vectors have 8 dimensions",
    ),
    "a vanilla checkpoint of garbage": (
        lambda place: place.write(place.folder / "x.pt", "garbage"),
        dict(vanilla_checkpoint="<here>/x.pt"),
        "--vanilla_checkpoint <here>/x.pt: not a checkpoint of a plain BART",
    ),
    "a vanilla checkpoint that is a pickle": (
        lambda place: place.write(place.folder / "x.pt", pickle.dumps(Trap(), protocol=2)),
        dict(vanilla_checkpoint="<here>/x.pt"),
        "--vanilla_checkpoint <here>/x.pt: not a checkpoint of a plain BART",
    ),
    "a vanilla checkpoint that is no state dict": (
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
        "they have besides model.decoder.layers.1.",
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
        "they lack model.encoder.layernorm_embedding.weight",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_wrong_file(name, fresh, capsys):
    change, changed, *fragments = FILES[name]
    change(fresh)
    assert_told(complaint(fresh, capsys, **changed), *map(fresh.filled_in, fragments))


# ---- an output folder that holds a run

ONE_STEP = dict(total_steps=1)
PREDICT = dict(do_train=None, initialize_from_vanilla=None, do_predict=True)


def garbage_in(name):
    return lambda place: place.write(place.out / name, "garbage")


def foreign_state(place):
    torch.save(
        {"step": 1, "optimizer": {"state": {}, "param_groups": []}}, place.out / "last/training_state.pt"
    )


RUNS = {
    "the same folder again": (
        None,
        ONE_STEP,
        "--output_dir <out> already holds a run; give --resume to continue it, or name another folder",
    ),
    "going on with another setting": (
        None,
        ONE_STEP | dict(resume=True, learning_rate=0.5),
        "--learning_rate is 0.5, but in the run to resume it was 0.01",
    ),
    "going on with a setting left out": (
        None,
        ONE_STEP | dict(resume=True, num_experts=None),
        "--num_experts is not given, but in the run to resume it was 2",
    ),
    "going on with a broken training state": (
        garbage_in("last/training_state.pt"),
        ONE_STEP | dict(resume=True),
        "<out>/last/training_state.pt: cannot be read",
        "to start anew, delete <out>/last",
    ),
    "going on with a foreign training state": (
        foreign_state,
        ONE_STEP | dict(resume=True),
        "<out>/last: its training state is not that of this run",
        "to start anew, delete <out>/last",
    ),
    "going on with broken weights": (
        garbage_in("last/model.safetensors"),
        ONE_STEP | dict(resume=True),
        "<out>/last: not a sound checkpoint of a routing BART",
    ),
    "a run.json of garbage": (
        garbage_in("run.json"),
        ONE_STEP | dict(resume=True),
        "<out>/run.json: is not valid JSON",
    ),
    "a run.json of something else": (
        lambda place: place.write(place.out / "run.json", {"settings": 3}),
        ONE_STEP | dict(resume=True),
        "<out>/run.json: has no settings of a run",
    ),
    "predicting with another number of experts": (
        None,
        PREDICT | dict(num_experts=5),
        "--num_experts is 5, but <out>/best was trained with 2; leave the flag out to use the checkpoint's",
    ),
    "predicting with a checkpoint that does not exist": (
        None,
        PREDICT | dict(checkpoint_name="7-steps"),
        "--output_dir <out> --checkpoint_name 7-steps: no checkpoint there",
    ),
    "predicting with too long an output": (
        None,
        PREDICT | dict(max_output_length=64),
        "--max_output_length is 64, but <out>/best has 32 positions",
    ),
    "predicting with a broken configuration": (
        garbage_in("best/config.json"),
        PREDICT,
        "<out>/best/config.json: is not valid JSON",
    ),
    "predicting with a plain BART": (
        None,
        PREDICT | dict(checkpoint="<bart>"),
        "<bart> holds a 'bart' model, not a routing BART",
    ),
    "a routing BART as the plain one": (
        None,
        dict(model="<out>/best", output_dir="<here>/new"),
        "--model <out>/best is a 'routing_bart' model; the experts are made from a 'bart'",
    ),
    "a routing BART as the plain weights": (
        None,
        dict(vanilla_checkpoint="<out>/best", output_dir="<here>/new"),
        "--vanilla_checkpoint <out>/best: not a plain BART; it lacks",
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_wrong_use_of_a_run(name, with_run, capsys):
    change, changed, *fragments = RUNS[name]
    if change:
        change(with_run)
    assert_told(complaint(with_run, capsys, **changed), *map(with_run.filled_in, fragments))


def test_a_checkpoint_without_a_vector_for_a_task(with_run, capsys, originals, tmp_path):
    split = tmp_path / "split.json"
    with_run.write(split, {"train": ["colour"], "test": ["count", "plural"]})
    with_run.write(with_run.out / "best/config.json", without_plural(with_run.out / "best/config.json"))
    told = complaint(with_run, capsys, **PREDICT, custom_tasks_splits=split, predict_split="test")
    assert_told(told, f"{with_run.out}/best has no task vector for plural")


def without_plural(path: Path) -> dict:
    config = json.loads(path.read_text())
    return config | {"task_names": [name for name in config["task_names"] if name != "plural"]}


# ---- several at once, and what is not installed


def test_all_faults_are_told_at_once(fresh, capsys):
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
        f"--taskvecs {fresh.folder}/y is no task-vector folder",
    ):
        assert_told(lines, fragment)
    assert sum(line.startswith("error: ") for line in lines) == 7


@pytest.mark.parametrize("tracker", ["tensorboard", "wandb"])
def test_a_tracker_that_is_not_installed(tracker, fresh, capsys, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == tracker else find_spec(name, *a)
    )
    told = complaint(fresh, capsys, log_with=tracker)
    assert_told(told, f"--log_with is '{tracker}', which needs: pip install {tracker}")


def test_malformed_lines_can_be_left_out(fresh):
    no_answer(fresh)
    assert run(fresh.gym, fresh.bart, fresh.out, skip_malformed=True, total_steps=1) == 0
    assert AutoTokenizer.from_pretrained(fresh.out / "best")(" x")["input_ids"]
