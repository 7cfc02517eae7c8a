"""Shared by the benchmarks: flags, model sizes, inputs, timing in turns, memory, the JSON line.

Shapes: B examples, S source and T target tokens, L layers (encoder, then decoder), E experts.
"""

import dataclasses
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import BartConfig, BartForConditionalGeneration
from transformers.utils import logging as library_logging

from dataloader.progress import ProgressBar
from routing_moe import RoutedModel, RoutingBartForConditionalGeneration
from routing_moe.config.console import run_command
from routing_moe.config.flags import NOT_NEGATIVE, SEED, Command, group
from routing_moe.io.accelerator import prepare_gpu
from routing_moe.io.memory import peak_memory_gb
from routing_moe.io.run_folder import describe_run

# "base" and "large" are the sizes of facebook/bart-base and facebook/bart-large. "half": 16 experts train in
# 8 GB plus activations. "tiny" is for test runs.
SIZES = {
    "tiny": dict(layers=2, d_model=32, ffn=64, heads=2, vocab=200, positions=256),
    "half": dict(layers=4, d_model=512, ffn=2048, heads=8, vocab=50265, positions=1024),
    "base": dict(layers=6, d_model=768, ffn=3072, heads=12, vocab=50265, positions=1024),
    "large": dict(layers=12, d_model=1024, ffn=4096, heads=16, vocab=50265, positions=1024),
}
N_TASKS = 64  # number of task vectors of a model
PRECISIONS = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}

# ---- flags

MEASURED = group("what is measured")


@dataclass(frozen=True, kw_only=True)
class BenchmarkSettings(Command):
    """Flags of all benchmarks."""

    threads: int = MEASURED(1, "CPU threads per process; 0: torch's choice", range=NOT_NEGATIVE)
    seed: int = MEASURED(0, "seed of weights and inputs", range=SEED)

    @property
    def device(self) -> str:
        return "cuda" if torch.cuda.is_available() else "cpu"


def run_benchmark(
    measured: Callable[[BenchmarkSettings], dict],
    command: type[BenchmarkSettings],
    argv: list[str] | None,
    description: str,
) -> int:
    """Prints the JSON line of a benchmark. Returns the exit code: 2 for wrong flags.

    measured: returns the fields of the line: `variants` and `ratios`.
    """

    def run(settings: BenchmarkSettings) -> None:
        library_logging.set_verbosity_error()
        prepare_gpu()
        is_cuda = settings.device == "cuda"
        if is_cuda and getattr(settings, "mixed_precision", "no") == "no":
            torch.set_float32_matmul_precision("high")  # TF32, as in the commands
        if settings.threads:
            torch.set_num_threads(settings.threads)
        torch.manual_seed(settings.seed)
        load, lines = os.getloadavg()[0], measured(settings)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        report = {
            "benchmark": command.program.rpartition(".")[2],
            **describe_run(dataclasses.asdict(settings)),
            "device": torch.cuda.get_device_name() if is_cuda else f"{cores} CPU cores, {platform.machine()}",
            "threads": torch.get_num_threads(),
            "load_average_before": load,
            "peak_memory_gb": peak_memory_gb(),
            **lines,
        }
        line = json.loads(json.dumps(report), parse_float=lambda text: float(f"{float(text):.4g}"))
        print(json.dumps(line))

    return run_command(run, command, argv, description)


# ---- models and inputs


def random_model(settings, num_experts: int, **fields) -> RoutingBartForConditionalGeneration | RoutedModel:
    """Returns a mixture of a BART with random weights, on the device. fields: of its configuration."""
    size = SIZES[settings.model_size]
    of_side = dict(layers=size["layers"], ffn_dim=size["ffn"], attention_heads=size["heads"])
    config = BartConfig(
        vocab_size=size["vocab"],
        d_model=size["d_model"],
        max_position_embeddings=size["positions"],
        dropout=0.1,
        attention_dropout=0.1,
        activation_dropout=0.1,
        **{f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in of_side.items()},
    )
    fields["task_names"] = [f"task{i}" for i in range(N_TASKS)]
    torch.manual_seed(settings.seed)
    with torch.device(settings.device):
        plain = BartForConditionalGeneration(config)
        return RoutingBartForConditionalGeneration.from_bart(plain, num_experts, **fields)


def random_source(batch_size: int, length: int, vocab_size: int, device: str) -> dict[str, Tensor]:
    """Returns random input_ids and attention_mask (B, S); every other example has 4 tokens of padding."""
    input_ids = torch.randint(4, vocab_size, (batch_size, length))
    attention_mask = torch.ones_like(input_ids)
    input_ids[1::2, -4:], attention_mask[1::2, -4:] = 1, 0
    return {"input_ids": input_ids.to(device), "attention_mask": attention_mask.to(device)}


# ---- time


def now(device: str) -> float:
    """Returns the time in seconds, after all kernels on the device have finished."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def autocast(settings) -> AbstractContextManager:
    """Returns the context in which products have the precision of --mixed_precision, as in the commands."""
    dtype = PRECISIONS[settings.mixed_precision]
    return torch.autocast(settings.device, dtype, enabled=dtype is not None)


def timed(call: Callable[[], object], device: str) -> Callable[[], dict[str, float]]:
    """Returns a function that calls this one and returns its seconds {"s": seconds}."""

    def run() -> dict[str, float]:
        start = now(device)
        call()
        return {"s": now(device) - start}

    return run


def measure(runs: dict[str, Callable[[], dict[str, float]]], rounds: int) -> dict[str, dict[str, float]]:
    """Returns {name: median_s and min_s of the field "s", medians of the others}.

    Variants run once per round, in turns, so that changes in the machine's speed affect all of them equally.
    A first round is not counted.
    """
    measured = {name: [] for name in runs}
    for _ in ProgressBar(range(rounds + 1), "measuring", unit="round"):
        for name, run in runs.items():
            measured[name].append(run())
    return {name: medians(times[1:]) for name, times in measured.items()}


def medians(times: list[dict[str, float]]) -> dict[str, float]:
    median = {field: statistics.median(time[field] for time in times) for field in times[0]}
    return {"median_s": median.pop("s"), "min_s": min(time["s"] for time in times)} | median


def ratios(variants: dict, pairs: list[tuple[str, str]], fields: dict[str, str]) -> dict[str, float]:
    """Returns {"A_over_B" + end: A / B} for pairs of variants that both ran. fields: {end: field}."""
    return {
        f"{over}_over_{under}{end}": variants[over][field] / variants[under][field]
        for over, under in pairs
        if {over, under} <= variants.keys()
        for end, field in fields.items()
    }
