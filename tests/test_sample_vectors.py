"""One vector per sample of a task, computed from its rows only, and what a vector has seen."""

import json
import shutil

import numpy as np
import pytest
import tiny_vectors
from tiny_runs import TRAIN_TASKS, typed, write_gym
from tiny_vectors import TEXTS, meta, vectors

from dataloader.encoding import TextFormat
from routing_moe.checkpoints.tokenizer_files import load_tokenizer
from routing_moe.config.flags import parse
from routing_moe.evaluation.text_vectors import encoder_states, text_vectors
from routing_moe.model.loading import load_bart
from routing_moe.model.task_vectors import UNKNOWN, of_sample, save_task_vectors, seen_by
from task.task_emb import inspect, reduce
from task.task_emb.command import settings_of
from task.task_emb.descriptions import DescriptionSettings
from task.task_emb.finetuned_text import FinetunedTextSettings
from task.task_emb.fisher import FisherSettings
from task.task_emb.gradient import GradientSettings
from task.task_emb.random import RandomSettings
from task.task_emb.text import TextSettings

FIRST, SECOND = "count_12_100", "count_12_13"  # in the order of the file names


def made(world, folder, method="text", gym=None, code=0, **changed):
    """The output folder of a command for the task `count` that must end with exit code `code`."""
    chosen = dict(tasks=["count"]) | changed
    assert tiny_vectors.run(method, gym or world.gym, world.bart, folder, **chosen) == code
    return folder


@pytest.fixture(scope="module")
def each(world):
    """{method: folder} of `--samples each`. Do not change the folders."""
    places = {method: world / f"each/{method}" for method in ("text", "fisher", "gradient")}
    return {method: made(world, place, method, samples="each") for method, place in places.items()}


# ---- one row per sample


@pytest.mark.parametrize("method", ["text", "fisher", "gradient"])
def test_a_row_equals_the_vector_of_a_command_for_that_sample(method, each, world, tmp_path):
    found = vectors(each[method])
    assert list(found) == ["count", FIRST, SECOND]
    for row, sample in (("count", "first"), (FIRST, "100"), (SECOND, "13")):
        alone = vectors(made(world, tmp_path / sample, method, samples=sample))
        assert list(alone) == ["count"]
        assert np.array_equal(found[row], alone["count"])
    assert meta(each[method])["sample_of"] == {FIRST: "count", SECOND: "count"}
    assert meta(each[method])["tasks"] == 1


def test_tasks_are_added_to_existing_samples(each, world, tmp_path):
    folder = shutil.copytree(each["text"], tmp_path / "more")
    made(world, folder, samples="each", tasks=["plural"])
    assert list(vectors(folder)) == ["count", FIRST, SECOND, "plural", "plural_12_100", "plural_12_13"]
    assert set(meta(folder)["sample_of"].values()) == {"count", "plural"}
    assert meta(folder)["tasks"] == 2


def test_the_first_sample_is_the_first_in_the_order_of_the_gym(world, tmp_path):
    gym = write_gym(tmp_path / "gym")
    for path in list((gym / "count").iterdir()):
        path.rename(path.with_name(path.name.replace("_13_", "_1_").replace("_100_", "_10_")))
    path = gym / "count/count_12_10_train.tsv"  # "_10_" sorts before "_1_t"
    path.write_text(path.read_text().replace("and", "times"))
    first = vectors(made(world, tmp_path / "first", gym=gym))["count"]
    found = vectors(made(world, tmp_path / "each", gym=gym, samples="each"))
    assert np.array_equal(found["count"], first)
    assert not np.array_equal(found["count_12_1"], first)


def test_samples_with_the_same_name_are_an_error(world, tmp_path, capsys):
    gym = write_gym(tmp_path / "gym")
    for path in list((gym / "colour").glob("colour_12_13_*")):
        path.rename(path.with_name(path.name.replace("colour", "count")))
    made(world, tmp_path / "out", gym=gym, code=2, samples="each")
    assert (
        f"{gym}/count: the sample {SECOND} has the name of another sample or task" in capsys.readouterr().err
    )


# ---- what a vector has seen


OF_A_GYM = {"output_dir": "x", "train_dir": "y"}
SEEN = {
    "random": (RandomSettings(output_dir="x"), "nothing"),
    "descriptions": (DescriptionSettings(output_dir="x", descriptions="y"), "nothing"),
    "text": (TextSettings(**OF_A_GYM), "unlabelled inputs of one sample"),
    "text of all": (TextSettings(**OF_A_GYM, samples="all"), "unlabelled inputs of all samples"),
    "finetuned_text": (FinetunedTextSettings(**OF_A_GYM, samples="13"), "labelled rows of one sample"),
    "fisher": (FisherSettings(**OF_A_GYM, samples="all"), "labelled rows of all samples"),
    "gradient": (GradientSettings(**OF_A_GYM), "labelled rows of one sample"),
    "fisher of each": (FisherSettings(**OF_A_GYM, samples="each"), "labelled rows of one sample"),
}


@pytest.mark.parametrize("name", SEEN)
def test_a_vector_states_its_data(name):
    settings, seen = SEEN[name]
    assert settings.seen == seen


def test_the_folder_and_the_log_state_what_vectors_have_seen_and_old_folders_are_unknown(each):
    assert meta(each["fisher"])["seen"] == "labelled rows of one sample"
    log = (each["fisher"] / "log.txt").read_text()
    assert "data of a task that its vector has seen: labelled rows of one sample" in log
    assert seen_by({"method": "fisher"}) == seen_by({"seen": 3}) == UNKNOWN
    assert of_sample("labelled rows of one sample", FIRST) == f"labelled rows of one sample: {FIRST}"
    assert of_sample("labelled rows of all samples", FIRST) == "labelled rows of all samples"


@pytest.fixture
def raw(tmp_path):
    """A folder with vectors of 4 tasks and of the samples of one of them, and a split."""
    (tmp_path / "raw").mkdir()
    names = [*TRAIN_TASKS, "plural", "plural_12_100", "plural_12_13"]
    save_task_vectors(tmp_path / "raw", names, np.random.default_rng(0).normal(size=(6, 5)))
    sample_of = dict.fromkeys(names[4:], "plural")
    text = json.dumps({"method": "fisher", "seen": "labelled rows of one sample", "sample_of": sample_of})
    (tmp_path / "raw/meta.json").write_text(text)
    (tmp_path / "split.json").write_text(json.dumps({"train": TRAIN_TASKS, "test": ["plural"]}))
    return tmp_path


def reduced(raw, name, **changed):
    assert reduce.main(typed(dict(taskvecs=raw / "raw", output_dir=raw / name) | changed)) == 0
    return meta(raw / name)


def test_a_reduction_states_what_its_vectors_and_the_fitted_vectors_have_seen(raw):
    saved = reduced(raw, "by_split", dim=2, custom_tasks_splits=raw / "split.json")
    assert (saved["seen"], saved["fitted_on_seen"]) == ("labelled rows of one sample",) * 2
    assert (saved["tasks"], saved["fitted_on"]) == (4, TRAIN_TASKS)
    assert list(saved["sample_of"]) == ["plural_12_100", "plural_12_13"]
    assert list(vectors(raw / "by_split")) == list(vectors(raw / "raw"))
    assert reduced(raw, "by_all", dim=2, fit_on=["all"])["fitted_on"] == [*TRAIN_TASKS, "plural"]
    (raw / "raw/meta.json").write_text(json.dumps({"method": "fisher"}))
    later = reduced(raw, "later", like=raw / "by_split")
    assert (later["seen"], later["fitted_on_seen"]) == ("unknown", "labelled rows of one sample")


def test_only_tasks_are_inspected_not_their_samples(raw):
    given = dict(taskvecs=(str(raw / "raw"),), output_dir=raw / "out", neighbours=1)
    found = inspect.check(inspect.Settings(**given))
    assert sorted(found.tasks) == sorted([*TRAIN_TASKS, "plural"])


# ---- the published recipes


def parsed(settings_class, **changed):
    words = typed(dict(train_dir="gym", output_dir="out") | changed)
    return settings_of(settings_class, parse(settings_class, words)).resolved()


def test_the_published_recipe_sets_the_flags_that_are_not_given():
    fisher = parsed(FisherSettings, recipe="published")
    assert (fisher.total_steps, fisher.learning_rate, fisher.of_training.warmup_steps) == (2500, 3e-5, 150)
    assert (fisher.bottleneck, fisher.samples, fisher.task_names) == (8, "first", True)
    assert (fisher.train_batch_size, fisher.average_over) == (8, "weight")
    text = parsed(TextSettings, recipe="published")
    assert (text.samples, text.task_names) == ("all", True)
    given = {"total_steps": 7, "samples": "all", "no-task_names": True}
    own = parsed(FisherSettings, recipe="published", **given)
    assert (own.total_steps, own.samples, own.task_names) == (7, "all", False)
    assert (own.bottleneck, own.learning_rate) == (8, 3e-5)
    without = parsed(FisherSettings)
    assert (without.total_steps, without.bottleneck, without.task_names) == (200, 16, False)


def test_task_names_are_read_with_task_names(each, world, tmp_path):
    found = vectors(made(world, tmp_path / "named", samples="13", task_names=True))["count"]
    rows = (world.gym / f"count/{SECOND}_train.tsv").read_text().splitlines()
    bart = load_bart(world.bart).eval()
    tokenizer = load_tokenizer(world.bart, bart.config.vocab_size)
    inputs = {"colour": [f"[count] {row.split(chr(9))[0]}" for row in rows]}
    expected = text_vectors(encoder_states(bart), tokenizer, inputs, TextFormat(TEXTS["max_input_length"]))
    np.testing.assert_allclose(found, expected[0], atol=1e-6)
    assert np.abs(found - vectors(each["text"])[SECOND]).max() > 1e-3


def test_a_folder_of_inputs_without_names_is_not_continued_with_names(each, world, tmp_path, capsys):
    folder = shutil.copytree(each["text"], tmp_path / "old")
    made(world, folder, samples="each", task_names=True, code=2)
    assert "--task_names is given, but in the vectors in" in capsys.readouterr().err
