"""Few-shot fine-tuning with a router: each sample has a task vector from its own train rows."""

import json
import shutil

import numpy as np
import pytest
import torch
from tiny_grids import QUICK, SAMPLES, TASK, log_of, outcomes, results
from tiny_runs import TRAIN_TASKS

from routing_moe import RoutingBartForConditionalGeneration
from routing_moe.finetuning.starting_model import Starts
from routing_moe.io.arrays import load_arrays
from routing_moe.io.files import npz_bytes
from routing_moe.model.loading import load_routing_bart
from routing_moe.model.task_vectors import save_task_vectors
from routing_moe.task_choice.choice import seen_when_stored
from routing_moe.task_choice.texts import TEXTS_FILE, KeptTexts

FIRST, SECOND = SAMPLES
SOFT = dict(router_mode="softmax", initial_tau=0.5, total_steps=1)
SCORED = dict(do_train=None, learning_rate_list=None, bsz_list=None, total_steps=None, warmup_steps=None)
BOTH = QUICK | SCORED | dict(samples="all")  # no training: the initial model is scored


def along(grids, name: str, **changed):
    start = dict(moe_init=True, init_dir=grids.mixture("mixture_soft", **SOFT))
    return grids.run(name, **(start | BOTH | changed))


def seen_in(folder) -> dict[str, str]:
    table = results(folder)
    return dict(zip(table["prefix"], table["vector_seen"], strict=True))


def of_both(what: str) -> dict[str, str]:
    return {name + best: f"{what}: {name}" for name in SAMPLES for best in ("", "_best")}


# ---- nearest


def gym_with_other_rows(grids, folder, sample: str):
    """A copy of the gym in which one sample of the task has the train inputs of `count`."""
    gym = shutil.copytree(grids.gym, folder)
    inputs = (gym / "count/count_12_13_train.tsv").read_text().splitlines()
    path = gym / TASK / f"{sample}_train.tsv"
    path.write_text("".join(f"{line.split(chr(9))[0]}\tit is green\n" for line in inputs))
    return gym


@pytest.fixture(scope="module")
def nearest(grids):
    """A grid of both samples, routed by their nearest tasks. Do not change the folder."""
    return along(grids, "nearest_of_samples")


@pytest.mark.parametrize(("changed", "other"), [(FIRST, SECOND), (SECOND, FIRST)])
def test_the_rows_of_a_sample_change_only_its_own_result(nearest, grids, changed, other, tmp_path):
    gym = gym_with_other_rows(grids, tmp_path / "gym", changed)
    after = along(grids, f"other_rows_{changed}", gym=gym)
    chosen, chosen_after = (json.loads((f / "task_vector.json").read_text()) for f in (nearest, after))
    assert chosen_after[other] == chosen[other]
    assert outcomes(after)[other] == outcomes(nearest)[other]
    assert (chosen[changed]["neighbour"], chosen_after[changed]["neighbour"]) == ("colour", "count")
    assert outcomes(after)[changed]["route"] != outcomes(nearest)[changed]["route"]


def test_the_tables_and_the_log_show_which_inputs_a_neighbour_was_found_by(nearest):
    assert seen_in(nearest) == of_both("unlabelled inputs of one sample")
    for sample in SAMPLES:
        assert f"has seen of the task: unlabelled inputs of one sample: {sample}" in log_of(nearest)


def test_each_sample_finds_a_neighbour_by_its_own_text_vector(grids, tmp_path):
    names = [TASK, *SAMPLES, *TRAIN_TASKS]
    save_task_vectors(tmp_path, names, np.array([[1.0, 1], [1, 0], [0, 1], [1, 0], [0, 1], [-1, -1]]))
    meta = {"seen": "labelled rows of one sample", "sample_of": dict.fromkeys(SAMPLES, TASK)}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    folder = along(grids, "planted_texts", text_vectors=tmp_path)
    found = {name: one["route"].split()[2] for name, one in outcomes(folder).items()}
    assert found == {FIRST: TRAIN_TASKS[0], SECOND: TRAIN_TASKS[1]}
    assert seen_in(folder) == of_both("labelled rows of one sample")


def test_a_neighbour_is_chosen_again_if_the_rows_have_changed(nearest, grids, tmp_path):
    folder = shutil.copytree(nearest, grids / "begun_before")
    (folder / f"configurations/{SECOND}.json").unlink()  # as if it had been killed
    gym = gym_with_other_rows(grids, tmp_path / "gym", SECOND)
    along(grids, "begun_before", gym=gym)
    whole = along(grids, "begun_after", gym=gym)
    assert (folder / "task_vector.json").read_bytes() == (whole / "task_vector.json").read_bytes()
    assert outcomes(folder) == outcomes(whole)


def test_text_vectors_of_train_tasks_are_kept_with_the_checkpoint(nearest, grids, tmp_path):
    run = shutil.copytree(grids.mixture("mixture_soft", **SOFT), tmp_path / "run")
    path, chosen = run / "best" / TEXTS_FILE, (nearest / "task_vector.json").read_bytes()

    def chosen_by(name: str, **changed) -> bytes:
        return (along(grids, name, init_dir=run, **changed) / "task_vector.json").read_bytes()

    kept = path.read_bytes()  # the first grid of this mixture wrote them
    assert chosen_by("texts_kept") == chosen
    assert path.read_bytes() == kept
    # Other vectors in the file change the choice, so it is read.
    arrays = load_arrays(path, ["about", "names", "inputs_N", "vectors_ND"])
    path.write_bytes(npz_bytes(**arrays | {"vectors_ND": -arrays["vectors_ND"]}))
    assert chosen_by("texts_changed") != chosen
    path.write_bytes(kept[:100])
    assert chosen_by("texts_damaged") == chosen
    assert path.read_bytes() == kept
    # Other texts, or other weights, are other vectors.
    chosen_by("texts_shorter", max_input_length=4)
    made_from = json.loads(str(arrays["about"]))["made_from"]
    assert KeptTexts.load(path.parent).made_from != made_from
    path.write_bytes(kept)
    model = load_routing_bart(RoutingBartForConditionalGeneration, run / "best")
    model.model.shared.weight.data.neg_()
    model.save_pretrained(run / "best")
    chosen_by("texts_of_other_weights")
    assert KeptTexts.load(path.parent).made_from != made_from


def test_text_vectors_are_computed_again_with_another_tokenizer_or_an_unwritable_folder(
    grids, tmp_path, monkeypatch
):
    run = shutil.copytree(grids.mixture("mixture_soft", **SOFT), tmp_path / "run")
    path = run / "best" / TEXTS_FILE
    path.unlink(missing_ok=True)
    for file in (run / "best").glob("tokenizer*"):  # as in a run of the published code
        file.unlink()
    along(grids, "texts_by_tokenizer", init_dir=run)
    kept = KeptTexts.load(path.parent).made_from
    other = shutil.copytree(grids.world.bart, tmp_path / "other_tokenizer")
    words = json.loads((other / "tokenizer.json").read_text())
    vocabulary = words["model"]["vocab"]
    first, second = sorted(vocabulary, key=vocabulary.get)[-2:]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (other / "tokenizer.json").write_text(json.dumps(words))
    along(grids, "texts_by_other_tokenizer", init_dir=run, model=other)
    assert KeptTexts.load(path.parent).made_from != kept
    path.unlink()

    def refuse(*_):
        raise OSError("Read-only file system")

    monkeypatch.setattr("routing_moe.task_choice.texts.write_bytes", refuse)
    folder = along(grids, "texts_read_only", init_dir=run)
    assert set(outcomes(folder)) == set(SAMPLES)
    assert not path.exists()


# ---- given, stored, learned


@pytest.fixture
def given(tmp_path):
    """A folder with different vectors of the task and of each of its samples."""
    names, vectors_ND = [TASK, *SAMPLES], np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    (tmp_path / "given").mkdir()
    save_task_vectors(tmp_path / "given", names, vectors_ND)
    meta = {"seen": "labelled rows of one sample", "sample_of": dict.fromkeys(SAMPLES, TASK)}
    (tmp_path / "given/meta.json").write_text(json.dumps(meta))
    return tmp_path / "given", dict(zip(names, vectors_ND, strict=True))


def test_each_sample_is_routed_by_its_given_vector(grids, given):
    folder, vectors = given
    init_dir = grids.mixture("mixture_soft", **SOFT)
    settings = grids.settings("unused", moe_init=True, init_dir=init_dir, taskvecs=folder, **BOTH)
    starts = Starts(settings, None, torch.device("cpu"))
    mixture = load_routing_bart(RoutingBartForConditionalGeneration, init_dir / "best")
    mixture.eval()
    for sample in (FIRST, SECOND, FIRST):
        model, words, seen = starts.of(sample, None)
        mixture.task_vectors.weight.data[0] = torch.from_numpy(vectors[sample])
        expected = mixture.routes_for(mixture.config.task_names[:1])
        assert torch.equal(model.routes_for([TASK]), expected)
        assert (words, seen) == ("given vector; fixed", f"labelled rows of one sample: {sample}")


def test_a_given_vector_of_the_whole_task_is_named_in_the_results(grids, given):
    folder, vectors = given
    save_task_vectors(folder, [TASK], vectors[TASK][None])
    (folder / "meta.json").write_text(json.dumps({"seen": "labelled rows of all samples"}))
    run = along(grids, "given_of_task", taskvecs=folder)
    assert set(seen_in(run).values()) == {"labelled rows of all samples"}


def test_a_sample_does_not_use_the_vector_of_another_sample(grids, given, capsys):
    folder, vectors = given
    save_task_vectors(folder, [TASK, FIRST], np.stack([vectors[TASK], vectors[FIRST]]))
    along(grids, "given_of_one", code=2, taskvecs=folder)
    error = (
        f"--taskvecs {folder} has vectors of other samples of {TASK}, but none of {SECOND}; compute them by"
    )
    assert error in capsys.readouterr().err
    own = along(grids, "given_of_one", taskvecs=folder, samples=FIRST)
    assert set(seen_in(own).values()) == {f"labelled rows of one sample: {FIRST}"}


def test_a_checkpoint_stores_the_vectors_of_samples_and_what_they_have_seen(grids, given):
    folder, vectors = given
    rows = {name: np.full(8, i, dtype=np.float32) for i, name in enumerate(TRAIN_TASKS)} | vectors
    save_task_vectors(folder, list(rows), np.stack(list(rows.values())))
    changed = dict(taskvecs=folder, taskvecs_dim=None, freeze_task_model=True, task_model_lr=None)
    run = along(grids, "stored_of_samples", init_dir=grids.mixture("mixture_of_given", **SOFT | changed))
    assert seen_in(run) == of_both("labelled rows of one sample")
    config = load_routing_bart(
        RoutingBartForConditionalGeneration, grids.world / "mixture_of_given/best"
    ).config
    assert seen_when_stored(config, TASK) == "labelled rows of one sample"
    assert seen_when_stored(config, TRAIN_TASKS[0]) == "labelled rows of all samples"  # trained on all


def test_learned_vectors_state_what_they_have_seen_and_average_routes_have_none(grids):
    learned = along(grids, "learned_of_samples", task_vector="learned", vector_steps=1)
    assert seen_in(learned) == of_both("labelled rows of one sample")
    average = along(grids, "average_of_samples", moe_avg_route=True)
    assert results(average)["vector_seen"].isna().all()
