"""Time and memory of a training step for all types of routes, compared with a plain BART of the same size.

    python benchmarks/train_step.py                                       bart-base sizes, 3 experts, this CPU
    python benchmarks/train_step.py --num_experts 16 --model_size half    the cost of many experts
    python benchmarks/train_step.py --device cuda --model_size large --batch_size 16 --steps 20
    python benchmarks/train_step.py --variants straight_through straight_through_slow plain --steps 10
    python benchmarks/train_step.py --variants plain lora_softmax lora_softmax_trained --num_experts 16
    python benchmarks/train_step.py --model_size tiny --steps 2           a test run of a few seconds

Weights are random, nothing is downloaded. Prints one JSON line; README.md explains it.
"""

import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measuring
from benchmarks.measuring import MEASURED, N_TASKS
from routing_moe.config.flags import AT_LEAST_1, NOT_NEGATIVE, Range
from routing_moe.model.base import train_base
from routing_moe.model.route_sources import random_task_routes

# Fields of the model's configuration for each type of routes, in addition to LEARNED, as in training.
LEARNED = dict(route_source="learned", router_mode="gumbel_softmax_st", expert_mixing="outputs")
ROUTED = {
    "average": dict(route_source="average"),
    "softmax": dict(router_mode="softmax"),
    "gumbel_softmax": dict(router_mode="gumbel_softmax"),
    "straight_through": {},
    "straight_through_frozen": {},  # router and task vectors are not trained
    "top_k": dict(router_mode="top_k"),
    "random": dict(route_source="random"),
    "task_random": dict(route_source="fixed"),
    "one_hot": dict(route_source="fixed"),  # as task_random, but always one task per example
    "merged_average": dict(route_source="average", expert_mixing="parameters"),
    "merged_softmax": dict(router_mode="softmax", expert_mixing="parameters"),
    "merged_softmax_one_task": dict(router_mode="softmax", expert_mixing="parameters"),
}
TASKS = {"one_hot": N_TASKS, "merged_softmax_one_task": 1}  # in a batch, regardless of --tasks_per_batch
# "lora_": the same routes with low-rank experts (`--lora_rank`) of a frozen BART; "_trained": of a trained.
LOW_RANK = ("lora_softmax", "lora_straight_through", "lora_one_hot", "lora_softmax_trained")
DEFAULT_VARIANTS = (*ROUTED, "one_expert", "plain")
# The same routes with every expert run on every example (sparse=False).
SLOW = tuple(f"{route}_slow" for route in ("average", "softmax", "straight_through", "one_hot"))
VARIANTS = (*DEFAULT_VARIANTS, *SLOW, *LOW_RANK)
# Ratios beside those over plain BART: merged over mixed, slow over fast.
PAIRS = [("merged_average", "average"), ("merged_softmax", "softmax"), ("merged_softmax_one_task", "softmax")]
PAIRS += [("straight_through_slow", "straight_through")]


@dataclass(frozen=True, kw_only=True)
class TrainStepSettings(measuring.BenchmarkSettings):
    program = "python -m benchmarks.train_step"
    variants: tuple[str, ...] = MEASURED(
        DEFAULT_VARIANTS, "variants to measure", choices=VARIANTS, metavar="VARIANT"
    )
    model_size: str = MEASURED("base", "size of the BART", choices=measuring.SIZES)
    num_experts: int = MEASURED(3, "experts per layer", range=Range(lambda value: value >= 2, "at least 2"))
    batch_size: int = MEASURED(4, "examples in a batch", range=AT_LEAST_1)
    source_length: int = MEASURED(128, "source tokens", range=AT_LEAST_1)
    target_length: int = MEASURED(16, "target tokens", range=AT_LEAST_1)
    tasks_per_batch: int = MEASURED(
        N_TASKS,
        "tasks among which the examples take turns",
        range=Range(lambda value: 1 <= value <= N_TASKS, f"from 1 to {N_TASKS}"),
    )

    lora_rank: int = MEASURED(16, "rank of the experts of lora_*", range=AT_LEAST_1)
    steps: int = MEASURED(7, "rounds; each runs every variant", range=AT_LEAST_1)
    threads: int = MEASURED(0, "CPU threads; 0: torch's choice", range=NOT_NEGATIVE)
    device: str = MEASURED("cpu", "device", choices=("cpu", "cuda"))
    mixed_precision: str = MEASURED(
        "no",
        "products in this precision, as in training; no: float32, TF32 on a GPU",
        choices=measuring.PRECISIONS,
    )

    def task_ids(self, variant: str, round: int) -> Tensor:
        """Returns task ids (B,) of a variant's examples, in turns; every round has other tasks."""
        B, tasks = self.batch_size, TASKS.get(route_of(variant), self.tasks_per_batch)
        return (torch.arange(B, device=self.device) % tasks + round * B) % N_TASKS


def main(argv: list[str] | None = None) -> int:
    return measuring.run_benchmark(run, TrainStepSettings, argv, __doc__)


def run(settings: TrainStepSettings) -> dict:
    models, steps = {}, {}
    for name in settings.variants:
        kind = name if name in LOW_RANK else "experts" if route_of(name) in ROUTED else "one_expert"
        if kind not in models:
            model = build_model(kind, settings)
            parameters = [p for p in model.parameters() if p.requires_grad]
            models[kind] = model, torch.optim.AdamW(parameters, lr=1e-6, fused=True)
        steps[name] = make_step(name, *models[kind], settings)
    variants = measuring.measure(steps, settings.steps)
    pairs = [(name, "plain") for name in variants if name != "plain"] + PAIRS
    fields = {"_forward_backward": "forward_backward_s", "_step": "median_s"}
    return {"variants": variants, "ratios": measuring.ratios(variants, pairs, fields)}


# ---- a step of one variant


def route_of(variant: str) -> str:
    """Returns the type of routes of a variant: its name without experts and slow path."""
    return variant.removeprefix("lora_").removesuffix("_trained").removesuffix("_slow")


def build_model(kind: str, settings: TrainStepSettings):
    """Returns the model of experts that are complete layers, of one expert, or of a low-rank variant."""
    if kind == "experts":
        return build_routed(settings)
    if kind == "one_expert":  # plain BART is made of it
        return measuring.random_model(settings, 1).train()
    model = build_routed(settings, expert_kind="lora", lora_rank=settings.lora_rank)
    train_base(model, kind.endswith("_trained"))
    return model


def build_routed(settings: TrainStepSettings, **fields):
    """Returns a routing model with both a router and fixed routes; each variant uses one of them.

    (`model.use_routes`, which sets fixed routes in training, would remove the router.)
    """
    model = measuring.random_model(settings, settings.num_experts, **fields).train()
    size = (N_TASKS, model.config.num_layers, settings.num_experts)
    model.register_buffer("task_routes", random_task_routes(*size, n=1, seed=settings.seed).to(model.device))
    return model


def make_step(variant: str, model, optimizer, settings: TrainStepSettings) -> Callable[[], dict[str, float]]:
    """Returns a function that runs one step of a variant and returns its times; inputs are drawn here.

    Seconds: forward_s includes drawing the routes; forward_backward_s all gradients, those of the router too;
    optimizer_s zero gradients for experts without one; s is the whole step. optimizer_share: optimizer_s / s.
    """
    B, S, T = settings.batch_size, settings.source_length, settings.target_length
    vocab_size, device = measuring.SIZES[settings.model_size]["vocab"], settings.device
    inputs = measuring.random_source(B, S, vocab_size, device)
    inputs["labels"] = torch.randint(4, vocab_size, (B, T), device=device)
    if variant == "plain":
        model, forward = model.to_bart(), plain_forward
    else:
        forward, inputs["sparse"] = routed_forward, not variant.endswith("_slow")
    rounds = itertools.count()

    def step() -> dict[str, float]:
        i = next(rounds)
        take_routes(model, route_of(variant))
        task_ids_B = settings.task_ids(variant, i)
        parameters = [p for p in model.parameters() if p.requires_grad]
        torch.manual_seed(settings.seed + i)  # the fast and the slow path draw the same routes
        start = measuring.now(device)
        with measuring.autocast(settings):
            loss, router_backward = forward(model, inputs, task_ids_B)
        forward_end = measuring.now(device)
        loss.backward()
        router_backward()
        backward_end = measuring.now(device)
        for p in parameters:
            if p.grad is None:  # as in training: AdamW needs zero gradients for experts without examples
                p.grad = torch.zeros_like(p)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        end = measuring.now(device)
        return {
            "s": end - start,
            "forward_s": forward_end - start,
            "forward_backward_s": backward_end - start,
            "optimizer_s": end - backward_end,
            "optimizer_share": (end - backward_end) / (end - start),
        }

    return step


def take_routes(model, route: str) -> None:
    """Sets the model to a type of routes. Router and task vectors are trained only if routes are learned."""
    if route not in ROUTED:  # plain BART, or one expert: there are no routes
        return
    for field, value in (LEARNED | ROUTED[route]).items():
        setattr(model.config, field, value)
    is_trained = model.config.route_source == "learned" and route != "straight_through_frozen"
    model.router.requires_grad_(is_trained)
    model.task_vectors.requires_grad_(is_trained)


def routed_forward(model, inputs: dict, task_ids_B: Tensor) -> tuple[Tensor, Callable[[], None]]:
    """Returns the loss and a function for the router's gradient: routes are drawn once, as in `stepping`."""
    routes_BLE = model.draw_routes(task_ids_B)
    leaf_BLE = routes_BLE.detach().requires_grad_(routes_BLE.requires_grad)
    constant_zeros = model.config.router_mode == "top_k"
    loss = model(**inputs, routes=leaf_BLE, route_groups=task_ids_B, constant_zeros=constant_zeros).loss

    def router_backward() -> None:
        if leaf_BLE.requires_grad:
            routes_BLE.backward(leaf_BLE.grad)

    return loss, router_backward


def plain_forward(bart, inputs: dict, task_ids_B: Tensor) -> tuple[Tensor, Callable[[], None]]:
    """Returns the same loss from a stock BART, which projects all target positions to the vocabulary."""
    source = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    labels = inputs["labels"]
    decoder_input_ids = bart.prepare_decoder_input_ids_from_labels(labels)
    logits_BTV = bart(**source, decoder_input_ids=decoder_input_ids, use_cache=False).logits
    loss = F.cross_entropy(logits_BTV.flatten(0, 1), labels.flatten(), reduction="sum", label_smoothing=0.1)
    return loss, lambda: None


if __name__ == "__main__":
    sys.exit(main())
