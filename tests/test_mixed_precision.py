"""Commands in bf16, with the precision of the flag or the launcher, and the projection to the vocabulary."""

import pytest
import test_ranking
import tiny_vectors
import torch
from accelerate import Accelerator
from tiny_grids import QUICK, finetune, results
from tiny_runs import run
from tiny_steps import ROUTES, Words, settings_with

from routing_moe.evaluation.route_losses import losses_of_files
from routing_moe.evaluation.scored_files import Decoding
from routing_moe.evaluation.scoring import answer
from routing_moe.model import projection
from routing_moe.model.projection import Projection
from routing_moe.optim.step import Stepper

pytestmark = pytest.mark.usefixtures("empty_pictures")

BF16 = dict(mixed_precision="bf16")  # test_several_processes.py: all commands choose a precision in one place
SHORT = dict(total_steps=1, num_beams=1, max_output_length=4)


@pytest.fixture(scope="module")
def mixture(world):
    """A run of one step with straight-through routes. Must not be changed."""
    return world.run("mixture_for_precisions", init_eps=0.3, **SHORT)


def test_training_and_prediction_with_the_precision_of_the_launcher(world, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert run(world.gym, world.bart, tmp_path / "run", do_predict=True, **SHORT) == 0
    only_predicting = dict(do_train=None, initialize_from_vanilla=None, do_predict=True, total_steps=None)
    only_predicting |= dict(mixed_precision="no", max_output_length=None)  # the flag wins
    assert run(world.gym, None, tmp_path / "run", **only_predicting) == 0


@pytest.mark.parametrize(
    ("training", "vector"), [("merged", "nearest"), ("fixed", "stored"), ("router", "learned")]
)
def test_fine_tuning_with_vectors_and_routes(grids, mixture, tmp_path, training, vector):
    flags = QUICK | SHORT | dict(moe_init=True, init_dir=mixture, learning_rate_list=[0.03])
    flags |= dict(route_training=training, task_vector=vector) | BF16
    learns = vector == "learned"
    if vector == "stored":  # of a task of the run
        flags["task_dir"] = grids.gym / "colour"
    flags["vector_steps"] = 2 if learns else None
    assert finetune(grids.gym, grids.bart, tmp_path / "grid", **flags) == 0
    assert all(results(tmp_path / "grid")["route"].str.contains("vector learned from 12 examples") == learns)


@pytest.mark.parametrize("method", ["finetuned_text", "fisher", "gradient"])
def test_task_vectors(world, tmp_path, method):
    flags = BF16 | dict(tasks=["colour"])
    assert tiny_vectors.run(method, world.gym, world.bart, tmp_path / "vectors", **flags) == 0


# ---- the projection to the vocabulary: float32 in every evaluation, bf16 in training


file = test_ranking.file  # the fixture
GENERATED, RANKED = (
    Decoding(num_beams=2, max_output_length=5, scoring=scoring) for scoring in ("generate", "rank")
)
EVALUATIONS = {
    "generation": lambda model, file, accelerator: answer(model, Words(), [file], GENERATED, accelerator),
    "ranking": lambda model, file, accelerator: answer(model, Words(), [file], RANKED, accelerator),
    "loss": lambda model, file, accelerator: losses_of_files(model, [file], GENERATED, accelerator),
}


@pytest.fixture
def in_bf16():
    return Accelerator(cpu=True, mixed_precision="bf16")


@pytest.fixture
def logits(monkeypatch) -> list[torch.dtype]:
    """The types of all logits that are computed."""
    found, linear = [], torch.nn.functional.linear

    def noting(inputs, weight, bias=None):
        product = linear(inputs, weight, bias)
        if len(weight) == 60:  # the vocabulary
            found.append(product.dtype)
        return product

    monkeypatch.setattr(torch.nn.functional, "linear", noting)
    return found


@pytest.mark.parametrize("evaluation", EVALUATIONS)
@pytest.mark.parametrize("kind", ["one-hot", "soft", "merged parameters", "one expert"])
def test_evaluations_project_in_float32(make_model, file, in_bf16, logits, evaluation, kind):
    model = make_model(dtype=torch.float32, **ROUTES[kind])
    EVALUATIONS[evaluation](model, file, in_bf16)
    assert set(logits) == {torch.float32}


def test_training_projects_in_bf16(make_model, examples, in_bf16, logits):
    model = make_model(dtype=torch.float32)
    Stepper(model, examples, settings_with(), in_bf16).step(0)
    assert set(logits) == {torch.bfloat16}


@torch.no_grad()
def test_other_products_of_an_evaluation_stay_in_bf16(make_model, batch, in_bf16):
    model = make_model(dtype=torch.float32, num_experts=1)
    types = []
    last = model.model.decoder.layers[-1].experts[0].fc2
    last.register_forward_hook(lambda module, inputs, output: types.append(output.dtype))
    with in_bf16.autocast():
        model(**batch)
    assert types == [torch.bfloat16]


@torch.no_grad()
def test_products_in_float32_may_use_tf32_on_cuda_alone(monkeypatch):
    layer, found = Projection(4, 6, bias=False), []
    precision = torch.get_float32_matmul_precision
    monkeypatch.setattr(torch.nn.functional, "linear", lambda *_: found.append(precision()))
    before = torch.get_float32_matmul_precision()
    with torch.autocast("cpu", torch.bfloat16):
        layer(torch.rand(2, 4))
        with projection.tf32_allowed("cuda"):
            layer(torch.rand(2, 4))
    assert (before, found) == ("highest", ["highest", "high"])
    assert torch.get_float32_matmul_precision() == before


@torch.no_grad()
def test_the_projection_of_some_positions_copies_no_weight_for_each_example():
    layer = Projection(4, 6, bias=False, dtype=torch.bfloat16).requires_grad_(False)
    states = torch.rand(3, 5, 4, dtype=torch.bfloat16)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        found = layer(states[:, -1:])  # a view, as of `logits_to_keep`
    assert torch.equal(found, layer(states)[:, -1:])
    assert "aten::bmm" not in {event.key for event in profile.key_averages()}
