"""Weights, gradients and optimizer state that exceed a GPU are reported before the model is loaded."""

import re
from types import SimpleNamespace

import pytest
import torch
from mistakes import Place, refused
from test_micro_batches import BASE, CUDA, GB
from tiny_runs import ROOT, run

from dataloader.errors import InputError
from routing_moe import RoutingBartConfig, RoutingBartForConditionalGeneration
from routing_moe.config.finetune import FinetuneSettings
from routing_moe.config.train import TrainSettings
from routing_moe.finetuning.starting_model import set_trained
from routing_moe.optim import state_memory
from routing_moe.optim.state_memory import State, check_fits, free_memory


def settings_of(kind, **given):
    required = dict(output_dir="out", train_dir="gym") if kind is TrainSettings else dict(
        output_dir="out", task_dir="task"
    )  # fmt: skip
    return kind(**required, do_train=True, **given)


TRAINING = settings_of(TrainSettings, initialize_from_vanilla=True, num_experts=64)


@pytest.mark.parametrize(
    "fields",
    [
        dict(num_experts=1),
        dict(num_experts=3),
        dict(num_experts=16, encoder_vanilla_layers=[0, 1], decoder_vanilla_layers=[5]),
        dict(num_experts=2, router_nn_type="lstm"),
        dict(num_experts=2, route_source="average"),
        dict(num_experts=3, expert_kind="lora", lora_targets="attention", decoder_vanilla_layers=[5]),
    ],
)
@pytest.mark.parametrize("frozen", [(), ("router", "vectors"), ("embeddings",)])
def test_the_counts_are_those_of_the_model(fields, frozen):
    config = RoutingBartConfig(**BASE | fields)
    with torch.device("meta"):
        model = RoutingBartForConditionalGeneration(config)
    trains_base = True  # of low-rank experts
    set_trained(model, "plain" if "router" in frozen else "router", "embeddings" in frozen, trains_base)
    counts = [sum(p.numel() for p in model.parameters() if p.requires_grad or not only) for only in (0, 1)]
    assert State.of(config, frozen) == State(*counts)


@pytest.mark.parametrize(("num_experts", "gigabytes"), [(3, 5.4), (16, 26.1), (32, 51.5), (64, 102.2)])
def test_the_bytes_of_a_bart_base_with_experts(num_experts, gigabytes):
    state = State.of(RoutingBartConfig(**BASE | dict(num_experts=num_experts)), frozen=())
    assert state.bytes / 1e9 == pytest.approx(gigabytes, abs=0.1)


LARGE = BASE | dict(d_model=1024, encoder_layers=12, decoder_layers=12)
LARGE |= dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 4096)
KINDS = (("layer", ()), ("lora", ("embeddings", "layers")), ("lora", ()))  # (kind, frozen parts)


def test_the_table_of_both_kinds_of_experts_is_that_of_the_estimate():
    text = (ROOT / "docs/cost_and_memory.md").read_text()
    found = re.findall(r"\| bart-(base|large) \| (\d+) " + r"\| ([\d.]+) " * 3, text)
    expected = []
    for size, fields in (("base", BASE), ("large", LARGE)):
        for E in (3, 16, 64):
            fields = fields | dict(num_experts=E, route_source="average")
            made = [(RoutingBartConfig(**fields, expert_kind=kind), frozen) for kind, frozen in KINDS]
            states = [State.of(*one) for one in made]
            expected.append((size, str(E), *(f"{state.bytes / 1e9:.1f}" for state in states)))
    assert found == expected


@pytest.fixture
def free(monkeypatch):
    """free(bytes): what commands find free on their device, as on a GPU. Loading a model is an error."""

    def set_free(n_bytes: int) -> None:
        monkeypatch.setattr(state_memory, "free_memory", lambda accelerator: n_bytes)

    def loaded(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("routing_moe.training.run.load_start", loaded)
    return set_free


def test_other_devices_are_not_checked_and_of_several_the_fullest_counts(monkeypatch):
    assert free_memory(SimpleNamespace(device=torch.device("cpu"))) is None
    monkeypatch.setattr(state_memory, "free_gpu_memory", lambda device: 78 * GB)
    monkeypatch.setattr(state_memory, "gather_object", lambda own: [*own, 20 * GB])
    assert free_memory(CUDA) == 78 * GB
    assert free_memory(SimpleNamespace(device=CUDA.device, num_processes=2)) == 20 * GB


def test_the_error_has_the_numbers_and_the_flags_that_help(free):
    config = RoutingBartConfig(**BASE | dict(num_experts=64))
    free(102 * GB)
    with pytest.raises(InputError) as raised:
        check_fits(lambda: State.of(config, ["router"]), CUDA, TRAINING)
    assert str(raised.value) == (
        "the model has 6392.0M parameters, 6391.4M of them trained: weights, gradients and AdamW's state "
        "take 102.3 GB, but 102.0 GB of GPU memory are free; give a smaller --num_experts (now 64) or "
        "--expert_kind lora or layers without experts (--encoder_vanilla_layers, --decoder_vanilla_layers)"
    )
    free(103 * GB)
    check_fits(lambda: State.of(config, []), CUDA, TRAINING)


def test_workers_are_named_if_there_are_several(free):
    free(GB)
    settings = settings_of(FinetuneSettings, num_workers=3)
    with pytest.raises(InputError, match=r"give fewer --num_workers \(now 3\) or --freeze_embeds$"):
        check_fits(lambda: State(GB, GB), CUDA, settings)


# ---- commands

CASES = {
    "a new model": (
        {},
        "give a smaller --num_experts (now 2) or --expert_kind lora or layers without experts "
        "(--encoder_vanilla_layers, --decoder_vanilla_layers)",
    ),
    "clusters": (
        dict(num_experts=None, task_routes="clusters:2", taskvecs="<here>/vectors", taskvecs_dim=None)
        | dict(router_hidden_dim=None, router_lr=None, task_model_lr=None),
        "give a smaller --num_experts or --task_routes clusters:K with fewer clusters (CLUSTERS; now "
        "clusters:2) or --expert_kind lora or layers without experts (--encoder_vanilla_layers, "
        "--decoder_vanilla_layers)",
    ),
    "a checkpoint": (
        dict(initialize_from_vanilla=None, checkpoint="<out>/best", num_experts=None, taskvecs_dim=None)
        | dict(router_hidden_dim=None, init_eps=None, model=None),
        "start from a smaller model",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_training_reports_it_before_loading(case, with_run: Place, free, capsys):
    place, (changed, ways) = with_run, CASES[case]
    place.vectors(vectors_ND=torch.eye(8)[:4].numpy())
    free(10_000)
    changed = {name: place.filled_in(value) for name, value in changed.items()}
    output = refused(place, capsys, lambda: run(place.gym, place.bart, place.folder / "new", **changed))
    assert "parameters: weights, gradients and AdamW's state take 0.0 GB, but 0.0 GB of GPU" in output.err
    assert output.err.splitlines()[-1].endswith(f"are free; {ways}")
