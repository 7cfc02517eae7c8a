"""Few-shot fine-tuning with a router: each sample has a task vector from its own train rows."""

import json
import shutil

import numpy as np
import pytest
import torch
from tiny_grids import QUICK, SAMPLES, TASK, by_sample, outcomes, results
from tiny_runs import TRAIN_TASKS
from tiny_vectors import write_vectors

from routing_moe.finetuning.starting_model import StartingModels
from routing_moe.io.arrays import load_arrays
from routing_moe.io.files import npz_bytes
from routing_moe.model.mixtures import load_mixture
from routing_moe.model.task_vectors import save_task_vectors
from routing_moe.task_choice.choice import seen_when_stored
from routing_moe.task_choice.texts import TEXTS_FILE

FIRST, SECOND = SAMPLES
SOFT = dict(router_mode="softmax", initial_tau=0.5, total_steps=1)
SCORED = dict(do_train=None, learning_rate_list=None, bsz_list=None, total_steps=None, warmup_steps=None)
BOTH = QUICK | SCORED | dict(samples="all", max_output_length=4)  # no training: the initial model is scored


def along(grids, name: str, **changed):
    start = dict(moe_init=True, init_dir=grids.mixture("mixture_soft", **SOFT))
    return grids.run(name, **(start | BOTH | changed))


def of_both(what: str) -> dict[str, str]:
    return {name + best: f"{what}: {name}" for name in SAMPLES for best in ("", "_best")}


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


def test_the_rows_of_a_sample_change_only_its_own_result(nearest, grids, tmp_path):
    gym = gym_with_other_rows(grids, tmp_path / "gym", FIRST)
    assert by_sample(nearest, "vector_seen") == of_both("unlabelled inputs of one sample")
    before, after = outcomes(nearest), outcomes(along(grids, "other_rows", gym=gym))
    assert after[SECOND] == before[SECOND]
    assert before[FIRST]["route"].startswith("vector of colour (nearest by text")
    assert after[FIRST]["route"].startswith("vector of count (nearest by text")


def test_text_vectors_of_train_tasks_are_kept_with_the_checkpoint(nearest, grids, tmp_path, monkeypatch):
    run = shutil.copytree(grids.mixture("mixture_soft", **SOFT), tmp_path / "run")
    path, expected = run / "best" / TEXTS_FILE, list(results(nearest)["route"])
    kept = path.read_bytes()  # the first grid of this mixture wrote them

    def routes_by(name: str, **changed) -> list[str]:
        return list(results(along(grids, name, init_dir=run, **changed))["route"])

    assert routes_by("texts_kept") == expected
    assert path.read_bytes() == kept
    # Other vectors in the file change the choice, so it is read; those of other texts do not count.
    arrays = load_arrays(path, ["about", "names", "vectors_ND"])
    path.write_bytes(npz_bytes(**arrays | {"vectors_ND": -arrays["vectors_ND"]}))
    assert routes_by("texts_changed") != expected
    # As earlier commits wrote them.
    about = json.loads(str(arrays["about"]))
    assert about.pop("limit") is None
    checksums = {"inputs_N": np.arange(len(arrays["names"])).astype(str)}
    about = json.dumps(about | {"made_from": "checksums of weights and tokenizer"})
    path.write_bytes(npz_bytes(**arrays | checksums | {"about": about}))
    assert routes_by("texts_of_earlier_commits") == expected
    path.unlink()

    def refuse(*_):
        raise OSError("Read-only file system")

    monkeypatch.setattr("routing_moe.task_choice.texts.write_bytes", refuse)
    assert routes_by("texts_read_only") == expected
    assert not path.exists()


@pytest.fixture
def given(tmp_path):
    """A folder with different vectors of the task and of each of its samples."""
    names, vectors_ND = [TASK, *SAMPLES], np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    rows = dict(zip(names, vectors_ND, strict=True))
    meta = dict(seen="labelled rows of one sample", sample_of=dict.fromkeys(SAMPLES, TASK))
    return write_vectors(tmp_path / "given", rows, **meta), rows


def test_each_sample_is_routed_by_its_given_vector(grids, given):
    folder, vectors = given
    init_dir = grids.mixture("mixture_soft", **SOFT)
    settings = grids.settings("unused", moe_init=True, init_dir=init_dir, taskvecs=folder, **BOTH)
    starts = StartingModels(settings, torch.device("cpu"))
    mixture = load_mixture(init_dir / "best")
    mixture.eval()
    for sample in (FIRST, SECOND, FIRST):
        model, words, seen = starts.model_for(sample, None)
        mixture.task_vectors.weight.data[0] = torch.from_numpy(vectors[sample])
        expected = mixture.routes_for(mixture.config.task_names[:1])
        assert torch.equal(model.routes_for([TASK]), expected)
        assert (words, seen) == ("given vector; fixed", f"labelled rows of one sample: {sample}")


def test_a_sample_does_not_use_the_vector_of_another_sample(grids, given, capsys):
    folder, vectors = given
    save_task_vectors(folder, [TASK, FIRST], np.stack([vectors[TASK], vectors[FIRST]]))
    along(grids, "given_of_one", code=2, taskvecs=folder)
    error = f"--taskvecs {folder} has vectors of samples of {TASK}, but not of {SECOND}; compute them by"
    assert error in capsys.readouterr().err
    own = along(grids, "given_of_one", taskvecs=folder, samples=FIRST)
    assert set(by_sample(own, "vector_seen").values()) == {f"labelled rows of one sample: {FIRST}"}


def test_a_checkpoint_stores_the_vectors_of_samples_and_what_they_have_seen(grids, given):
    folder, vectors = given
    rows = {name: np.full(8, i, dtype=np.float32) for i, name in enumerate(TRAIN_TASKS)} | vectors
    save_task_vectors(folder, list(rows), np.stack(list(rows.values())))
    changed = dict(taskvecs=folder, taskvecs_dim=None, freeze_task_model=True, task_model_lr=None)
    run = along(grids, "stored_of_samples", init_dir=grids.mixture("mixture_of_given", **SOFT | changed))
    assert by_sample(run, "vector_seen") == of_both("labelled rows of one sample")
    config = load_mixture(grids.world / "mixture_of_given/best").config
    assert seen_when_stored(config, TASK) == "labelled rows of one sample"
    assert seen_when_stored(config, TRAIN_TASKS[0]) == "labelled rows of all samples"  # trained on all


def test_learned_vectors_state_what_they_have_seen_and_average_routes_have_none(grids):
    learned = along(grids, "learned_of_samples", task_vector="learned", vector_steps=1)
    assert by_sample(learned, "vector_seen") == of_both("labelled rows of one sample")
    average = along(grids, "average_of_samples", moe_avg_route=True)
    assert results(average)["vector_seen"].isna().all()
