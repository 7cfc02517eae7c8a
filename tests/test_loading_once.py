"""A command loads each file or folder of weights once."""

import shutil
from collections import Counter

import pytest
import torch
from tiny_grids import QUICK
from tiny_runs import reopen, run
from transformers import PreTrainedModel

from routing_moe.model import base, loading


@pytest.fixture
def loaded(monkeypatch):
    """loaded() returns {file or folder of weights: how often it was loaded} since the last call."""
    places = []

    def recorded(load, position: int):
        def load_and_record(*args, **kwargs):
            places.append(str(args[position]))
            return load(*args, **kwargs)

        return load_and_record

    from_pretrained = recorded(PreTrainedModel.from_pretrained.__func__, 1)
    monkeypatch.setattr(PreTrainedModel, "from_pretrained", classmethod(from_pretrained))
    for module, name in ((torch, "load"), (loading, "load_file"), (base, "load_file")):
        monkeypatch.setattr(module, name, recorded(getattr(module, name), 0))

    def since() -> Counter:
        found = Counter(places)
        places.clear()
        return found

    return since


def once(*places) -> Counter:
    return Counter(map(str, places))


@pytest.fixture
def weights(originals, tmp_path):
    return shutil.copy(originals.bart / "model.safetensors", tmp_path / "weights.safetensors")


def test_training_and_prediction(loaded, originals, weights, tmp_path, quick_pictures):
    out = tmp_path / "run"
    flags = dict(total_steps=1, num_beams=1, vanilla_checkpoint=weights)
    loaded()
    assert run(originals.gym, originals.bart, out, do_predict=True, **flags) == 0
    assert loaded() == once(originals.bart, weights, out / "best")
    reopen(out)
    assert run(originals.gym, originals.bart, out, resume=True, **flags) == 0
    assert loaded() == once(out / "last", out / "last/training_state.pt")


@pytest.mark.parametrize("start", ["weights", "learned"])
def test_fine_tuning(start, loaded, grids, weights):
    flags = QUICK | dict(learning_rate_list=[0.03, 0.1], total_steps=1)
    if start == "weights":
        flags, expected = flags | dict(checkpoint=weights), once(grids.bart, weights)
    else:
        mixture = grids.mixture("mixture")
        flags |= dict(moe_init=True, init_dir=mixture, task_vector="learned", vector_steps=1)
        expected = once(mixture / "best")
    loaded()
    grids.run(f"loading_{start}", **flags)
    assert loaded() == expected
