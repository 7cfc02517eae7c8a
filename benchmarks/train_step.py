"""Time and memory of a training step, by kind of route, against a plain BART of the same size.

    python benchmarks/train_step.py                                       bart-base sizes on this CPU
    python benchmarks/train_step.py --device cuda --model_size large --batch_size 16 --steps 20
    python benchmarks/train_step.py --variants straight_through straight_through_slow --steps 10
    python benchmarks/train_step.py --model_size tiny --steps 2           seconds: does it run?

Weights are random, nothing is downloaded. Prints one JSON line; README.md says how to read it.
"""

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measuring
from benchmarks.measuring import ratio

ROUTES = ("average", "softmax", "straight_through", "one_hot")
# "_slow": the same routes with every expert run on every example (sparse=False).
# "_second": on --second_shape, where an expert gets more examples at once.
VARIANTS = [
    *(route + path for route in ROUTES for path in ("", "_slow")),
    "plain",
    "one_hot_second",
    "plain_second",
]


@dataclass(frozen=True)
class Settings:
    model_size: str
    num_experts: int
    batch_size: int
    source_length: int
    target_length: int
    second_shape: str
    steps: int
    variants: list[str] | None
    device: str
    threads: int
    seed: int
    no_memory: bool
    memory_of: str

    def shape(self, variant: str) -> tuple[int, int, int]:
        """(B, S, T) of a variant's batch."""
        if variant.endswith("_second"):
            return tuple(int(n) for n in self.second_shape.split("x"))
        return self.batch_size, self.source_length, self.target_length


def main(argv: list[str] | None = None) -> None:
    settings = parse_settings(argv)
    measuring.prepare(settings)
    if settings.memory_of:
        print(peak_memory_gb(settings))
        return
    memory = {}
    if not settings.no_memory:
        memory = measuring.memory_in_fresh_processes(__file__, settings, settings.variants)
    load = os.getloadavg()[0]
    model = measuring.build_routing_model(settings).train()
    plain = model.to_bart(measuring.one_hot_routes(model, 1)[0])  # shares the experts' tensors
    optimizer = build_optimizer(model)
    steps = {name: make_step(name, model, plain, optimizer, settings) for name in settings.variants}
    found = measuring.interleave(steps, settings.steps)
    variants = {name: measuring.summarise(fields) for name, fields in found.items()}
    for name, value in memory.items():
        variants[name]["peak_memory_gb"] = value
    measuring.print_report("train_step", settings, load, variants, ratios_of(variants))


def ratios_of(variants: dict) -> dict[str, float | None]:
    fields = {"step": "median_s", "forward_backward": "forward_backward_s"}
    ratios = {
        "straight_through_slow_over_fast_step": ratio(
            variants, "straight_through_slow", "straight_through", "median_s"
        )
    }
    for route in (*ROUTES, "one_hot_second"):
        plain = "plain_second" if route.endswith("_second") else "plain"
        for name, field in fields.items():
            ratios[f"{route}_over_{plain}_{name}"] = ratio(variants, route, plain, field)
    return ratios


# ---- one variant's step


def build_optimizer(model) -> torch.optim.AdamW:
    return torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)


def make_step(name: str, model, plain, optimizer, settings: Settings) -> Callable[[], dict[str, float]]:
    """A function that runs one step of a variant and returns its times, on inputs made now.

    All variants share one set of weights and one optimizer: it passes over parameters without a gradient,
    so a plain step moves the plain model's parameters only.
    """
    B, S, T = settings.shape(name)
    route = name.removesuffix("_second").removesuffix("_slow")
    trained = plain if route == "plain" else model
    inputs = measuring.random_source(B, S, trained.config.vocab_size, settings.device)
    inputs["labels"] = torch.randint(4, trained.config.vocab_size, (B, T), device=settings.device)
    if route != "plain":
        inputs["sparse"] = not name.endswith("_slow")
        routes_of_step = source_of_routes(route, model, B)
    parameters = list(trained.parameters())

    def step() -> dict[str, float]:
        torch.manual_seed(settings.seed)  # the fast and the slow path draw the same routes
        start = measuring.now(settings.device)
        if route == "plain":
            loss = plain_loss(plain, **inputs)
        else:
            loss = model(**inputs, routes=routes_of_step()).loss
        loss.backward()
        middle = measuring.now(settings.device)
        for p in parameters:
            if p.grad is None:  # as in training: AdamW must see zeros where no example came by
                p.grad = torch.zeros_like(p)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        end = measuring.now(settings.device)
        return {"s": end - start, "forward_backward_s": middle - start}

    return step


def source_of_routes(route: str, model, batch_size: int) -> Callable[[], Tensor]:
    """A function that gives routes (B, L, E); every example has a task of its own."""
    config, task_ids_B = model.config, torch.arange(batch_size, device=model.device) % measuring.N_TASKS
    if route == "one_hot":
        routes_BLE = measuring.one_hot_routes(model, batch_size)
        return lambda: routes_BLE
    if route == "average":
        size = (batch_size, config.num_layers, config.num_experts)
        return lambda: torch.full(size, 1 / config.num_experts, device=model.device)

    def draw() -> Tensor:
        config.router_mode = {"straight_through": "gumbel_softmax_st"}.get(route, route)
        return model.draw_routes(task_ids_B)

    return draw


def plain_loss(bart, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> Tensor:
    """The same loss from a stock BART, which projects every target position to the vocabulary."""
    decoder_input_ids = bart.prepare_decoder_input_ids_from_labels(labels)
    logits_BTV = bart(input_ids, attention_mask, decoder_input_ids, use_cache=False).logits
    return F.cross_entropy(logits_BTV.flatten(0, 1), labels.flatten(), reduction="sum", label_smoothing=0.1)


def peak_memory_gb(settings: Settings) -> float:
    """Of this process, which runs two steps of one variant (the second has the optimizer's state)."""
    name = settings.memory_of
    is_plain = name.startswith("plain")
    model = measuring.build_plain_model(settings) if is_plain else measuring.build_routing_model(settings)
    model.train()
    step = make_step(name, model, model, build_optimizer(model), settings)
    step(), step()
    return measuring.own_peak_memory_gb(settings.device)


def parse_settings(argv: list[str] | None) -> Settings:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    measuring.add_common_arguments(parser)
    parser.add_argument("--batch_size", type=int, default=4, help="examples in a batch (default 4)")
    parser.add_argument("--source_length", type=int, default=128, help="tokens (default 128)")
    parser.add_argument("--target_length", type=int, default=16, help="tokens (default 16)")
    parser.add_argument("--second_shape", default="16x64x16", help="of *_second: batch x source x target")
    parser.add_argument("--steps", type=int, default=7, help="rounds; each runs every variant (default 7)")
    parser.add_argument("--variants", nargs="+", help=f"default: all of {' '.join(VARIANTS)}")
    args = parser.parse_args(argv)
    args.variants = measuring.chosen_variants(parser, args.variants, VARIANTS)
    return Settings(**vars(args))


if __name__ == "__main__":
    main()
