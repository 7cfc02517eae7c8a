"""Shared fixtures: tiny random models, and the numbers of the published code."""

import gc
import json
import os
import shlex
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from hub_client import hub_client  # noqa: F401 (a fixture)
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from safetensors.torch import load_file
from transformers import BartConfig, BartForConditionalGeneration

from routing_moe import RoutingBartForConditionalGeneration

torch.set_num_threads(1)  # more threads do not speed up tiny tensors, and may change the last bits

GYM = Path(os.environ.get("ROUTING_MOE_GYM") or Path(__file__).resolve().parents[2] / "shared/gym")


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
    np.random.seed(0)
    AcceleratorState._reset_state(reset_partial_state=True)  # otherwise it keeps the first test's precision


@pytest.fixture(scope="session", autouse=True)
def _without_waiting_for_the_disk():
    """Disables flushes, which take longer than these runs; test_durability.py tests them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _without_garbage_in_libraries():
    """Leaves objects of libraries out of garbage collections, which take .3 s with them, and makes few."""
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)


@pytest.fixture
def attention_in_float64(monkeypatch):
    """Keeps float64 in transformers' eager attention, the only one of Gemma 2: its softmax is in float32."""
    softmax = torch.nn.functional.softmax
    monkeypatch.setattr("torch.nn.functional.softmax", lambda *args, dtype=None, **how: softmax(*args, **how))


@pytest.fixture(scope="session")
def published_numbers() -> Path:
    """Folder of numbers that the published code computes (see its README.md)."""
    return Path(__file__).resolve().parent / "data/published"


@pytest.fixture(scope="session")
def published_run(published_numbers, tmp_path_factory) -> Path:
    """A run folder of the published code, with `best/model.pt`. Must not be changed: copy it."""
    run = Path(shutil.copytree(published_numbers / "run", tmp_path_factory.mktemp("published") / "run"))
    state = load_file(run / "best/model.safetensors")
    for name in ("model.encoder.embed_tokens", "model.decoder.embed_tokens", "lm_head"):
        state[f"{name}.weight"] = state["model.shared.weight"]
    torch.save(state, run / "best/model.pt")
    (run / "best/model.safetensors").unlink()
    return run


@pytest.fixture(scope="session")
def real_gym() -> Path:
    """The gym of CrossFit: ROUTING_MOE_GYM, by default ../shared/gym."""
    if not GYM.is_dir():
        pytest.skip(f"the CrossFit gym is not here: {GYM} (ROUTING_MOE_GYM)")
    return GYM


def tiny_bart_config(**fields) -> BartConfig:
    sizes = dict(vocab_size=60, d_model=16, max_position_embeddings=40, dropout=0.0)
    for side in ("encoder", "decoder"):
        sizes |= {f"{side}_layers": 2, f"{side}_attention_heads": 2, f"{side}_ffn_dim": 24}
    return BartConfig(**(sizes | fields))


@pytest.fixture
def make_model():
    """make_model(num_experts=3, dtype=..., **config fields) returns a routing BART whose experts differ."""

    def make(num_experts=3, dtype=torch.float64, bart_fields=None, **fields):
        bart = BartForConditionalGeneration(tiny_bart_config(**(bart_fields or {})))
        defaults = dict(task_names=["a", "b", "c", "d"], router_input_dim=8, router_hidden_dim=4)
        defaults |= dict(init_eps=0.1) | fields
        model = RoutingBartForConditionalGeneration.from_bart(bart, num_experts, **defaults)
        return model.to(dtype).eval()

    return make


@pytest.fixture
def batch():
    """Four examples of different lengths: input_ids, attention_mask, labels (-100 padded)."""
    generator = torch.Generator().manual_seed(7)
    input_ids = torch.randint(4, 60, (4, 9), generator=generator)
    labels = torch.randint(4, 60, (4, 6), generator=generator)
    attention_mask = torch.ones_like(input_ids)
    for row, (source, target) in enumerate([(9, 6), (7, 3), (5, 6), (8, 2)]):
        input_ids[row, source:] = 1
        attention_mask[row, source:] = 0
        labels[row, target:] = -100
    return dict(input_ids=input_ids, attention_mask=attention_mask, labels=labels)


def draw_nothing(monkeypatch) -> None:
    """Pictures are empty files from now on, and those of routes, which every run draws, are not made."""
    monkeypatch.setattr("routing_moe.pictures.heat_maps.plot_routes", lambda *_, **__: Figure())
    for name, result in (("savefig", None), ("draw_without_rendering", None), ("get_tightbbox", Bbox.unit())):
        monkeypatch.setattr(Figure, name, lambda *_, result=result, **__: result)


@pytest.fixture
def without_chart_library(monkeypatch):
    """Report pages lack the JavaScript that draws their charts, which takes longer to pack than the rest."""
    monkeypatch.setattr("vl_convert.javascript_bundle", lambda **_: "")


@contextmanager
def without_pictures():
    """Pictures are empty files in this block, for a fixture of whole runs."""
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch)
        yield


@pytest.fixture
def empty_pictures(monkeypatch):
    """Files of pictures stay empty, because to draw them takes longer than the rest of a command."""
    draw_nothing(monkeypatch)


@pytest.fixture(scope="session")
def python_in_forks():
    """A program as `python`, whose commands do not import torch again; their pictures are empty files."""
    from fork_server import __file__, serve
    from forks import FORK

    with tempfile.TemporaryDirectory() as folder:
        address, program, ready = f"{folder}/address", Path(folder) / "python", FORK.Event()
        with pytest.MonkeyPatch.context() as patch:
            draw_nothing(patch)
            server = FORK.Process(target=serve, args=(address, ready))
            server.start()
        words = shlex.join([sys.executable, "-S", __file__, address])
        # Not sh, which drops exported functions.
        program.write_text(f'#!/usr/bin/env bash\nexec {words} "$@"\n')
        program.chmod(0o755)
        assert ready.wait(60)
        yield program
        server.kill()
        server.join()


def one_hot_routes(choices_BL, num_experts: int, dtype=torch.float64) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.as_tensor(choices_BL), num_experts).to(dtype)


# ---- single steps (tiny_steps.py)


@pytest.fixture
def examples():
    """Fourteen examples of four tasks, of different lengths; every other one accepts two answers."""
    from tiny_steps import encoded

    draw = np.random.default_rng(3)

    def text(shortest, longest):
        return [0, *draw.integers(4, 60, draw.integers(shortest, longest)), 2]

    n_outputs = [1 + i % 2 for i in range(14)]
    sources = [text(1, 12) for _ in n_outputs]
    outputs = [text(1, 6) for _ in range(sum(n_outputs))]
    return encoded(sources, outputs, [i % 4 for i in range(14)], n_outputs)


@pytest.fixture
def task_examples():
    """Seven examples of different lengths, of one task."""
    from tiny_steps import encoded

    draw = np.random.default_rng(5)

    def text(length):
        return [0, *draw.integers(4, 60, length), 2]

    sources, outputs = ([text(n) for n in sizes] for sizes in ((2, 9, 4, 6, 3, 8, 5), (1, 4, 2, 3, 1, 2, 5)))
    return encoded(sources, outputs, [0] * 7)


@pytest.fixture
def make_stepper(make_model, examples):
    """make_stepper(settings=dict(...), **model fields) returns a stepper of a new model, equal each time.

    Encoder and decoder have one layer, unless bart_fields has other numbers.
    """

    from accelerate import Accelerator
    from tiny_steps import settings_with

    from routing_moe.optim.step import Stepper

    def make(settings=None, examples=examples, bart_fields=None, **fields):
        bart_fields = dict(encoder_layers=1, decoder_layers=1) | (bart_fields or {})
        torch.manual_seed(0)
        AcceleratorState._reset_state(reset_partial_state=True)
        accelerator = Accelerator(cpu="ACCELERATE_TORCH_DEVICE" not in os.environ)
        model = make_model(bart_fields=bart_fields, **fields).to(accelerator.device)
        return Stepper(model, examples, settings_with(**(settings or {})), accelerator)

    return make


# ---- whole runs (tiny_runs.py, mistakes.py)


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    from tiny_runs import World

    return World(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def finished(world):
    """An uninterrupted run of six steps with all outputs. Must not be changed: copy it."""
    from tiny_runs import run

    assert run(world.gym, world.bart, world / "finished", do_predict=True, save_period=2) == 0
    return world / "finished"


@pytest.fixture(scope="session")
def soft_run(world, finished):
    """A run whose routes mix the outputs of experts."""
    return world.run("answering_soft", router_mode="softmax", total_steps=1)


@pytest.fixture(scope="session")
def given_run(world, finished):
    """A run with given routes, without vectors."""
    routes = world / "answering_routes.json"
    routes.write_text(json.dumps({"colour": 0, "count": 1, "opposite": [1, 0, 1]}))
    absent = dict.fromkeys(("num_experts", "router_hidden_dim", "taskvecs_dim", "router_lr", "task_model_lr"))
    return world.run("answering_given", **absent, task_routes=routes, total_steps=1)


@pytest.fixture
def quick_pictures(monkeypatch, finished):
    """Pictures, which take longer than these runs, stay empty; `finished`, made before, has real ones."""
    draw_nothing(monkeypatch)


@pytest.fixture(scope="session")
def originals(tmp_path_factory):
    """A gym, a BART and a finished one-step run. Must not be changed."""
    from mistakes import Place
    from tiny_runs import run, write_bart, write_gym

    folder = tmp_path_factory.mktemp("originals")
    place = Place(folder, write_gym(folder / "gym"), write_bart(folder / "bart"))
    with without_pictures():
        assert run(place.gym, place.bart, place.out, total_steps=1) == 0
    return place


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def fresh(originals, tmp_path):
    """Copies of gym and BART, and no output folder."""
    from mistakes import Place

    gym, bart = (Path(shutil.copytree(o, tmp_path / o.name)) for o in (originals.gym, originals.bart))
    return Place(tmp_path, gym, bart)


@pytest.fixture
def with_run(originals, tmp_path):
    """The originals' gym and BART, and a copy of the run of one step."""
    from mistakes import Place

    place = Place(tmp_path, originals.gym, originals.bart)
    shutil.copytree(originals.out, place.out)
    return place


# ---- fine-tuning (tiny_grids.py)


@pytest.fixture(scope="module")
def grids(world, request):
    from tiny_grids import Grids

    return Grids(world, request.module.__name__)


@pytest.fixture(scope="session")
def finished_grid(world):
    """An uninterrupted grid of two samples and two learning rates. Must not be changed: copy it."""
    from tiny_grids import Grids

    return Grids(world, "shared").run("finished", save_best=True)


@pytest.fixture(scope="session")
def starts(originals):
    """{name: folder} of runs to start fine-tuning from, made from the originals. Must not be changed."""
    from tiny_grids import NO_ROUTER, ONE_EXPERT
    from tiny_runs import NO_LEARNING, run

    flags = {
        "one": ONE_EXPERT,
        "random": NO_LEARNING | NO_ROUTER | dict(random_routing=True),
        "given": NO_LEARNING | NO_ROUTER | dict(task_routes="tasks", num_experts=None),
        "top": NO_LEARNING | dict(router_mode="top_k", router_top_k=1),
    }
    with without_pictures():
        for name, changed in flags.items():
            assert run(originals.gym, originals.bart, originals.folder / name, **changed) == 0
    return {"run": originals.out} | {name: originals.folder / name for name in flags}


@pytest.fixture
def add(tmp_path, monkeypatch):
    """add(flag=value): the exit code of add-task in tmp_path, which has reviews.csv; None omits a flag."""
    from tiny_tables import add_task, reviews, write_table

    monkeypatch.chdir(tmp_path)
    write_table(Path("reviews.csv"), reviews())
    return add_task


@pytest.fixture
def build(tmp_path, recipes):
    """The command build_gym on a small mirror and recipes (small_mirror.py)."""
    from small_mirror import Build  # imported late: it imports pyarrow

    return Build(tmp_path)


@pytest.fixture
def recipes(monkeypatch) -> dict:
    """The recipes of small_mirror.py, which the command has, too. A test may change them."""
    import small_mirror

    monkeypatch.setattr("routing_moe.cli.build_gym.all_recipes", small_mirror.all_recipes)
    monkeypatch.setattr(small_mirror, "RECIPES", dict(small_mirror.RECIPES))
    return small_mirror.RECIPES
