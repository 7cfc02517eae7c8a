"""What the benchmarks share: model sizes, inputs, interleaved timing, memory, the JSON line."""

import dataclasses
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import BartForConditionalGeneration
from transformers.utils import logging as library_logging

from routing_moe import RoutingBartConfig, RoutingBartForConditionalGeneration
from routing_moe.run_state import describe_run

# Those of facebook/bart-base and facebook/bart-large; "tiny" shows that a script works.
SIZES = {
    "tiny": dict(layers=2, d_model=32, ffn=64, heads=2, vocab=200, positions=256),
    "base": dict(layers=6, d_model=768, ffn=3072, heads=12, vocab=50265, positions=1024),
    "large": dict(layers=12, d_model=1024, ffn=4096, heads=16, vocab=50265, positions=1024),
}
N_TASKS = 64  # task vectors of a model; an example's task is its number in the batch, modulo this

# ---- models and inputs


def model_config(model_size: str, num_experts: int) -> RoutingBartConfig:
    size = SIZES[model_size]
    sides = {
        f"{side}_{field}": value
        for side in ("encoder", "decoder")
        for field, value in (
            ("layers", size["layers"]),
            ("ffn_dim", size["ffn"]),
            ("attention_heads", size["heads"]),
        )
    }
    return RoutingBartConfig(
        vocab_size=size["vocab"],
        d_model=size["d_model"],
        max_position_embeddings=size["positions"],
        dropout=0.1,
        attention_dropout=0.1,
        activation_dropout=0.1,
        num_experts=num_experts,
        task_names=[f"task{i}" for i in range(N_TASKS)],
        **sides,
    )


def build_routing_model(settings) -> RoutingBartForConditionalGeneration:
    """A routing BART with random weights, on the device."""
    torch.manual_seed(settings.seed)
    config = model_config(settings.model_size, settings.num_experts)
    return RoutingBartForConditionalGeneration(config).to(settings.device)


def build_plain_model(settings) -> BartForConditionalGeneration:
    """A stock BART of the same size with random weights, on the device."""
    torch.manual_seed(settings.seed)
    config = model_config(settings.model_size, settings.num_experts).to_bart_config()
    return BartForConditionalGeneration(config).to(settings.device)


def random_source(batch_size: int, length: int, vocab_size: int, device: str) -> dict[str, Tensor]:
    """input_ids and attention_mask (B, S); every other example is 4 tokens shorter, so the mask is real."""
    input_ids = torch.randint(4, vocab_size, (batch_size, length))
    attention_mask = torch.ones_like(input_ids)
    input_ids[1::2, -4:], attention_mask[1::2, -4:] = 1, 0
    return {"input_ids": input_ids.to(device), "attention_mask": attention_mask.to(device)}


def one_hot_routes(model, batch_size: int) -> Tensor:
    """(B, L, E): an expert drawn at random for every example and layer."""
    choices_BL = torch.randint(model.config.num_experts, (batch_size, model.config.num_layers))
    return torch.nn.functional.one_hot(choices_BL, model.config.num_experts).float().to(model.device)


# ---- time


def now(device: str) -> float:
    """Seconds on a running clock, once the device has done all it was asked."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def interleave(
    variants: dict[str, Callable[[], dict[str, float]]], rounds: int
) -> dict[str, dict[str, list[float]]]:
    """Run every variant once a round; returns for each name the measurements of all rounds, by field.

    Taking turns spreads the machine's moods over all variants alike. One round before them is not counted.
    """
    found: dict[str, dict[str, list[float]]] = {name: {} for name in variants}
    with tqdm(total=(rounds + 1) * len(variants), file=sys.stderr) as progress:
        for i in range(rounds + 1):
            for name, run in variants.items():
                progress.set_description(name)
                for field, value in run().items():
                    if i > 0:
                        found[name].setdefault(field, []).append(value)
                progress.update()
    return found


def summarise(measured: dict[str, list[float]]) -> dict[str, float]:
    """median_s and min_s of the field "s", the median of every other field."""
    others = {field: statistics.median(values) for field, values in measured.items() if field != "s"}
    return {"median_s": statistics.median(measured["s"]), "min_s": min(measured["s"])} | others


def ratio(variants: dict, over: str, under: str, field: str = "median_s") -> float | None:
    """variants[over][field] / variants[under][field]; None where one of them was not run."""
    if over not in variants or under not in variants:
        return None
    return variants[over][field] / variants[under][field]


# ---- memory


def memory_in_fresh_processes(script: str, settings, names: list[str]) -> dict[str, float]:
    """Peak memory in GB of each variant, run alone in a process of its own (`script --memory_of NAME`).

    To be called before this process builds a model: a child's ru_maxrss starts from its parent's size.
    """
    flags = [
        text
        for field, value in dataclasses.asdict(settings).items()
        if field not in ("memory_of", "no_memory", "variants")
        for text in (f"--{field}", str(value))
    ]
    found = {}
    for name in tqdm(names, desc="memory", file=sys.stderr):
        command = [sys.executable, script, *flags, "--memory_of", name]
        child = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found[name] = float(child.stdout)
    return found


def own_peak_memory_gb(device: str) -> float:
    """Peak memory of this process so far in GB: allocated on the GPU, or resident (interpreter included)."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


# ---- start and end of a script


def prepare(settings) -> None:
    library_logging.set_verbosity_error()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)


def add_common_arguments(parser) -> None:
    parser.add_argument("--model_size", choices=list(SIZES), default="base", help="default base")
    parser.add_argument("--num_experts", type=int, default=3, help="experts per layer (default 3)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 (default): torch's choice")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no_memory", action="store_true", help="leave out the peak memory of each variant")
    parser.add_argument("--memory_of", default="", help="print the peak GB of one variant, nothing else")


def chosen_variants(parser, asked: list[str] | None, available: list[str]) -> list[str]:
    """The variants asked for (None: all), or the parser's error for an unknown one."""
    for name in asked or []:
        if name not in available:
            parser.error(f"--variants {name}: it must be among {' '.join(available)}")
    return [name for name in available if asked is None or name in asked]


def print_report(benchmark: str, settings, load: float, variants: dict, ratios: dict) -> None:
    """One JSON line on stdout. load: what the machine was doing before this process began to time."""
    is_cuda = settings.device == "cuda"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    report = {
        "benchmark": benchmark,
        **describe_run(dataclasses.asdict(settings)),
        "device": torch.cuda.get_device_name() if is_cuda else f"{cores} CPU cores, {platform.machine()}",
        "threads": torch.get_num_threads(),
        "load_average_before": load,
        "variants": {name: rounded(values) for name, values in variants.items()},
        "ratios": rounded({name: value for name, value in ratios.items() if value is not None}),
    }
    print(json.dumps(report))


def rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.4g}") for name, value in values.items()}
