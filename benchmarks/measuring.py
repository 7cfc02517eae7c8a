"""Shared by the benchmarks: flags, model sizes, inputs, timing in turns, memory, the JSON line.

Shapes: B examples, S source and T target tokens, L layers (encoder, then decoder), E experts.
"""

import copy
import dataclasses
import json
import os
import platform
import re
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import BartForConditionalGeneration
from transformers import initialization as init
from transformers.utils import logging as library_logging

from dataloader.errors import InputError
from dataloader.progress import ProgressBar
from routing_moe import RoutedModel, RoutingBartConfig, RoutingBartForConditionalGeneration
from routing_moe.config.console import run_command
from routing_moe.config.flags import AT_LEAST_1, NOT_NEGATIVE, SEED, Command, flag_problems, group
from routing_moe.io.accelerator import prepare_gpu
from routing_moe.io.memory import peak_memory_gb
from routing_moe.io.run_folder import describe_run
from routing_moe.model.base import is_of_base, train_base
from routing_moe.model.conversion import share_tensors
from routing_moe.model.selection import random_one_hot

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
class Settings(Command):
    """Flags of all benchmarks."""

    threads: int = MEASURED(1, "CPU threads per process; 0: torch's choice", range=NOT_NEGATIVE)
    seed: int = MEASURED(0, "seed of weights and inputs", range=SEED)

    @property
    def device(self) -> str:
        return "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True, kw_only=True)
class RandomModelSettings(Settings):
    """Flags of the benchmarks of a model with random weights, train_step and predict."""

    variants: tuple[str, ...]
    model_size: str = MEASURED("base", "size of the BART", choices=SIZES)
    num_experts: int = MEASURED(3, "experts per layer", range=AT_LEAST_1)
    batch_size: int = MEASURED(4, "examples in a batch", range=AT_LEAST_1)
    source_length: int = MEASURED(128, "source tokens", range=AT_LEAST_1)
    steps: int = MEASURED(7, "rounds; each runs every variant", range=AT_LEAST_1)
    threads: int = MEASURED(0, "CPU threads; 0: torch's choice", range=NOT_NEGATIVE)
    device: str = MEASURED("cpu", "device", choices=("cpu", "cuda"))
    mixed_precision: str = MEASURED(
        "no", "products in this precision, as in training; no: float32, TF32 on a GPU", choices=PRECISIONS
    )


def run_benchmark(
    measured: Callable[[Settings], dict], command: type[Settings], argv: list[str] | None, description: str
) -> int:
    """Prints the JSON line of a benchmark. Returns the exit code: 2 for wrong flags.

    measured: returns the fields of the line: `variants` and `ratios`.
    """

    def run(settings: Settings) -> None:
        if problems := flag_problems(settings):
            raise InputError(problems)
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
            **rounded(lines),
        }
        print(json.dumps(report))

    return run_command(run, command, argv, description)


# ---- models and inputs


def model_config(model_size: str, num_experts: int) -> RoutingBartConfig:
    """Returns the configuration of a routing BART."""
    size = SIZES[model_size]
    of_side = dict(layers=size["layers"], ffn_dim=size["ffn"], attention_heads=size["heads"])
    fields = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in of_side.items()}
    return RoutingBartConfig(
        vocab_size=size["vocab"],
        d_model=size["d_model"],
        max_position_embeddings=size["positions"],
        dropout=0.1,
        attention_dropout=0.1,
        activation_dropout=0.1,
        num_experts=num_experts,
        task_names=[f"task{i}" for i in range(N_TASKS)],
        **fields,
    )


def uninitialised_model(
    model_size: str, num_experts: int, device: str
) -> RoutingBartForConditionalGeneration:
    """Returns a routing BART with uninitialised parameters, which take no memory on the device "meta"."""
    with torch.device(device), init.no_init_weights():
        model = RoutingBartForConditionalGeneration(model_config(model_size, num_experts))
    model.tie_weights()  # the library skips this if it skips the initialisation
    return model


@torch.no_grad()
def build_routing_model(settings, num_experts: int) -> RoutingBartForConditionalGeneration:
    """Returns a routing BART with random weights; the experts of a layer are copies of its first one.

    Times do not depend on the values of weights, and copying is several times faster than drawing.
    """
    torch.manual_seed(settings.seed)
    model = uninitialised_model(settings.model_size, num_experts, settings.device)
    drawn: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        first = drawn.setdefault(re.sub(r"\.experts\.\d+\.", ".experts.0.", name), parameter)
        if first is not parameter:
            parameter.copy_(first)
        elif parameter.ndim > 1:
            parameter.normal_(0, 0.02)
        else:
            parameter.fill_(1.0 if name.endswith(".weight") else 0.0)  # of layer norms; biases
    return model


def build_plain_model(settings) -> BartForConditionalGeneration:
    """Returns a stock BART of the same size with random weights, on the device."""
    torch.manual_seed(settings.seed)
    config = model_config(settings.model_size, 1).to_bart_config()
    return BartForConditionalGeneration(config).to(settings.device)


def with_one_expert(plain: BartForConditionalGeneration, model_size: str):
    """Returns a routing BART with one expert that shares all tensors of a plain BART of that size."""
    model = uninitialised_model(model_size, 1, "meta")
    tensors = plain.state_dict(keep_vars=True).items()
    state = {re.sub(r"(\.layers\.\d+)\.", r"\1.experts.0.", name): tensor for name, tensor in tensors}
    share_tensors(model, state)
    return model.train(plain.training)


def with_low_rank_experts(plain: BartForConditionalGeneration, settings, trains_base: bool):
    """Returns a mixture of random low-rank experts whose BART has the tensors of a plain one.

    settings: have num_experts and lora_rank. Without `trains_base`, its parameters are others, which are
    frozen, with the same memory.
    """
    tensors = {id(p): p if trains_base else torch.nn.Parameter(p.detach()) for p in plain.parameters()}
    experts = dict(num_experts=settings.num_experts, lora_rank=settings.lora_rank, lora_targets="all")
    tasks = [f"task{i}" for i in range(N_TASKS)]
    model = RoutedModel.from_backbone(copy.deepcopy(plain, tensors), **experts, task_names=tasks)
    train_base(model, trains_base)
    torch.manual_seed(settings.seed)
    for name, parameter in model.named_parameters():
        if not is_of_base(name):
            parameter.data.normal_(0, 0.02)
    return model


def random_source(batch_size: int, length: int, vocab_size: int, device: str) -> dict[str, Tensor]:
    """Returns random input_ids and attention_mask (B, S); every other example has 4 tokens of padding."""
    input_ids = torch.randint(4, vocab_size, (batch_size, length))
    attention_mask = torch.ones_like(input_ids)
    input_ids[1::2, -4:], attention_mask[1::2, -4:] = 1, 0
    return {"input_ids": input_ids.to(device), "attention_mask": attention_mask.to(device)}


def one_hot_routes(model, batch_size: int) -> Tensor:
    """Returns one-hot routes (B, L, E) with a random expert for every example and layer."""
    size = (batch_size, model.config.num_layers)
    return random_one_hot(size, model.config.num_experts).float().to(model.device)


# ---- time


def now(device: str) -> float:
    """Returns the time in seconds, after all kernels on the device have finished."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def autocast(settings: RandomModelSettings) -> AbstractContextManager:
    """Returns the context in which products have the precision of --mixed_precision, as in the commands."""
    dtype = PRECISIONS[settings.mixed_precision]
    return torch.autocast(settings.device, dtype, enabled=dtype is not None)


def measure(runs: dict[str, Callable[[], dict[str, float]]], rounds: int) -> dict[str, dict[str, float]]:
    """Returns {name: median_s and min_s of the field "s", medians of the others}.

    Variants run once per round, in turns, so that changes in the machine's speed affect all of them equally.
    A first round is not counted.
    """
    measured: dict[str, dict[str, list[float]]] = {name: {} for name in runs}
    with ProgressBar(total=(rounds + 1) * len(runs)) as progress:
        for i in range(rounds + 1):
            for name, run in runs.items():
                progress.set_description(name)
                for field, value in run().items():
                    if i:
                        measured[name].setdefault(field, []).append(value)
                progress.update()
    return {
        name: {
            "median_s": statistics.median(fields["s"]),
            "min_s": min(fields["s"]),
            **{field: statistics.median(values) for field, values in fields.items() if field != "s"},
        }
        for name, fields in measured.items()
    }


def ratio(variants: dict, over: str, under: str, field: str = "median_s") -> float | None:
    """Returns variants[over][field] / variants[under][field], or None if one was not run."""
    if over not in variants or under not in variants:
        return None
    return variants[over][field] / variants[under][field]


def rounded(values: dict) -> dict:
    """Returns nested dictionaries with floats of four digits, without values of None (not measured)."""
    nested = {name: rounded(value) if isinstance(value, dict) else value for name, value in values.items()}
    return {
        name: float(f"{value:.4g}") if isinstance(value, float) else value
        for name, value in nested.items()
        if value is not None
    }
