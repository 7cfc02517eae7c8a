"""Out of memory: one error that names flags and what is kept; and weights are loaded once."""

import pickle
import re
import shutil
from collections import Counter

import pytest
import tiny_vectors
import torch
from mistakes import Place
from tiny_grids import QUICK, finetune
from tiny_runs import reopen, run, typed
from transformers import PreTrainedModel

from routing_moe.analysis.ablation import Ablation
from routing_moe.cli import ablate, merge
from routing_moe.config.assemble import MergeSettings
from routing_moe.config.finetune import FinetuneSettings
from routing_moe.config.flags import build_parser
from routing_moe.config.train import TrainSettings
from routing_moe.evaluation.scored_files import Decoding
from routing_moe.finetuning.trial import TrialRunner
from routing_moe.io.memory import is_out_of_memory, naming_memory_flags
from routing_moe.model import base, loading
from routing_moe.optim.step import Stepper
from task.task_emb.settings import FisherSettings

GPU = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.11 GiB of which "
    "1.20 GiB is free. Including non-PyTorch memory, this process has 77.90 GiB memory in use."
)
CPU = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
    "allocate 4096 bytes. Error code 12 (Cannot allocate memory)"
)


def raises(error: Exception):
    def fail(*_, **__):
        raise error

    return fail


@pytest.mark.parametrize("error", [GPU, CPU, MemoryError(), RuntimeError("CUDA error: out of memory")])
def test_out_of_memory_is_recognised_also_from_a_worker(error):
    assert is_out_of_memory(error)
    assert is_out_of_memory(pickle.loads(pickle.dumps(error)))


@pytest.mark.parametrize("error", [RuntimeError("CUDA error: device-side assert"), OSError("memory")])
def test_other_errors_are_not_changed(error):
    assert not is_out_of_memory(error)
    with pytest.raises(type(error), match=re.escape(str(error))), naming_memory_flags(Decoding()):
        raise error


def train(place: Place, **changed) -> int:
    return run(place.gym, place.bart, place.folder / "new", **changed)


def tune(place: Place, **changed) -> int:
    flags = QUICK | dict(task_dir=place.gym / "plural") | changed
    return finetune(place.gym, place.bart, place.folder / "new", **flags)


def merged(place: Place) -> int:
    return merge.main(typed(dict(routes_from=place.out, model=place.bart, output_dir=place.folder / "new")))


def fisher(place: Place) -> int:
    return tiny_vectors.run("fisher", place.gym, place.bart, place.folder / "new", tasks=["colour"])


OTHERS = "; with other results a smaller --num_experts or --num_beams, or --mixed_precision bf16; "
OF_STEPS = "give a smaller --max_tokens_per_micro_batch"
OF_SCORES = "--predict_batch_size; with other results"
OF_GRIDS = "--predict_batch_size or --num_workers; with other results a smaller --num_beams, or"
FIRST = f"{OF_STEPS} or --predict_batch_size{OTHERS}no checkpoint had been"
COMMANDS = {  # name: (command, what fails, its parser, another part of the message)
    "train": (train, (Stepper, "_backward"), build_parser(TrainSettings), FIRST),
    "ablate": (lambda place: ablate.main([str(place.out)]), (Ablation, "scores"), None, OF_SCORES),
    "merge": (
        merged,
        (merge, "merge"),
        build_parser(MergeSettings),
        "no flag of this command reduces",
    ),
    "finetune": (tune, (TrialRunner, "run"), build_parser(FinetuneSettings), OF_GRIDS),
    "fisher": (fisher, (Stepper, "_backward"), build_parser(FisherSettings), OF_STEPS),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_names_flags_that_it_has_and_what_is_kept(name, with_run: Place, monkeypatch, capsys):
    command, place_of_failure, parser, expected = COMMANDS[name]
    monkeypatch.setattr(*place_of_failure, raises(GPU))
    assert command(with_run) == 1
    output = capsys.readouterr().err
    assert "Traceback" not in output
    last = output.splitlines()[-1]
    assert "out of memory" in last
    assert with_run.filled_in(expected) in last
    if parser:  # ablations inherit the settings of their run
        named = set(re.findall(r"--\w+", last))
        assert named <= {flag for action in parser._actions for flag in action.option_strings}


def test_training_reports_what_was_requested_and_its_last_checkpoint(with_run: Place, monkeypatch, capsys):
    step = Stepper.step
    monkeypatch.setattr(Stepper, "step", lambda self, n: step(self, n) if n < 1 else raises(CPU)())
    assert train(with_run, total_steps=3, eval_period=1, max_tokens_per_micro_batch=0) == 1
    output = capsys.readouterr().err.splitlines()[-1]
    assert "stopped: out of memory (4096 bytes requested): " in output
    assert output.endswith(f"last good checkpoint: {with_run.folder / 'new/last'}")
    assert (with_run.folder / "new/last/training_state.pt").is_file()


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
