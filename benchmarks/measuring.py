"""Shared by the benchmarks: model sizes, inputs, interleaved timing, memory, the JSON line.

Shapes: B examples, S source and T target tokens, L layers (encoder, then decoder), E experts.
"""

import dataclasses
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import AutoTokenizer, BartForConditionalGeneration
from transformers import initialization as init
from transformers.utils import logging as library_logging

from routing_moe import RoutingBartConfig, RoutingBartForConditionalGeneration
from routing_moe.io.accelerator import prepare_gpu
from routing_moe.io.run_folder import describe_run
from routing_moe.model.conversion import share_tensors
from routing_moe.model.selection import random_one_hot
from task.skill_gym import TINY_BART

# "base" and "large" are the sizes of facebook/bart-base and facebook/bart-large. "half": 16 experts train in
# 8 GB plus activations. "tiny" is for test runs.
SIZES = {
    "tiny": dict(layers=2, d_model=32, ffn=64, heads=2, vocab=200, positions=256),
    "half": dict(layers=4, d_model=512, ffn=2048, heads=8, vocab=50265, positions=1024),
    "base": dict(layers=6, d_model=768, ffn=3072, heads=12, vocab=50265, positions=1024),
    "large": dict(layers=12, d_model=1024, ffn=4096, heads=16, vocab=50265, positions=1024),
}
SAVED_SIZES = ("embedded", *(name for name in SIZES if name != "tiny"))  # with a large enough vocabulary
N_TASKS = 64  # number of task vectors of a model
PRECISIONS = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}

# ---- models and inputs


def layers(model_size: str) -> tuple[int, int]:
    """Returns the number of layers of the encoder and of the decoder."""
    size = SIZES[model_size]
    return size["layers"], size.get("decoder_layers", size["layers"])


def model_config(model_size: str, num_experts: int, **fields) -> RoutingBartConfig:
    """Returns the configuration of a routing BART. fields: of the mixture."""
    size = SIZES[model_size]
    sides = {
        f"{side}_{field}": value
        for side, number in zip(("encoder", "decoder"), layers(model_size), strict=True)
        for field, value in (
            ("layers", number),
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
        **fields,
    )


def uninitialised_model(
    model_size: str, num_experts: int, device: str, **fields
) -> RoutingBartForConditionalGeneration:
    """Returns a routing BART with uninitialised parameters, which take no memory on the device "meta".

    fields: of the mixture.
    """
    with torch.device(device), init.no_init_weights():
        model = RoutingBartForConditionalGeneration(model_config(model_size, num_experts, **fields))
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


def saved_bart(folder: Path, model_size: str, seed: int) -> Path:
    """Returns a folder with a random BART and the embedded tokenizer; for "embedded" the embedded BART."""
    if model_size == "embedded":
        return TINY_BART
    torch.manual_seed(seed)
    BartForConditionalGeneration(model_config(model_size, 1).to_bart_config()).save_pretrained(folder)
    AutoTokenizer.from_pretrained(TINY_BART).save_pretrained(folder)
    return folder


def with_one_expert(plain: BartForConditionalGeneration, model_size: str):
    """Returns a routing BART with one expert that shares all tensors of a plain BART of that size."""
    model = uninitialised_model(model_size, 1, "meta")
    tensors = plain.state_dict(keep_vars=True).items()
    state = {re.sub(r"(\.layers\.\d+)\.", r"\1.experts.0.", name): tensor for name, tensor in tensors}
    share_tensors(model, state)
    return model.train(plain.training)


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


def autocast(settings):
    """Returns the context in which products have the precision of --mixed_precision, as in the commands."""
    dtype = PRECISIONS[settings.mixed_precision]
    return torch.autocast(settings.device, dtype, enabled=dtype is not None)


def interleave(
    variants: dict[str, Callable[[], dict[str, float]]], rounds: int
) -> dict[str, dict[str, list[float]]]:
    """Returns {name: {field: measurements of all rounds}} of the variants, each run once per round.

    Because variants run in turns, changes in the machine's speed affect all of them equally. One warm-up
    round is not counted.
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
    """Returns median_s and min_s of the field "s", and the median of every other field."""
    others = {field: statistics.median(values) for field, values in measured.items() if field != "s"}
    return {"median_s": statistics.median(measured["s"]), "min_s": min(measured["s"])} | others


def measure(
    runs: dict[str, Callable[[], dict[str, float]]], rounds: int, memory: dict[str, float]
) -> dict[str, dict[str, float]]:
    """Returns {name: summary of its rounds, and its peak memory if it was measured}; see `summarise`."""
    found = {name: summarise(fields) for name, fields in interleave(runs, rounds).items()}
    for name, value in memory.items():
        found[name]["peak_memory_gb"] = value
    return found


# ---- memory


def memory_in_fresh_processes(script: str, settings) -> dict[str, float]:
    """Returns peak memory in GB of each variant, each run in a new process (`script --memory_of NAME`).

    {} with --no_memory. Call it before this process builds a model: the ru_maxrss of a child process is at
    least the size of its parent.
    """
    if settings.no_memory:
        return {}
    fields = dataclasses.asdict(settings)
    for excluded in ("memory_of", "no_memory", "variants"):
        del fields[excluded]
    flags = []
    for field, value in fields.items():
        values = value if isinstance(value, list) else [value]
        flags += [f"--{field}", *map(str, values)]
    found = {}
    for name in tqdm(settings.variants, desc="memory", file=sys.stderr):
        command = [sys.executable, script, *flags, "--memory_of", name]
        child = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found[name] = float(child.stdout)
    return found


def own_peak_memory_gb(device: str) -> float:
    """Returns peak memory of this process so far in GB: on the GPU, or resident (interpreter included)."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def count_parameters(model_size: str, num_experts: int) -> int:
    return sum(p.numel() for p in uninitialised_model(model_size, num_experts, "meta").parameters())


def machine_memory_gb(device: str) -> tuple[float, float]:
    """Returns (free, total) memory in GB. On a CPU, memory of the file cache is not counted as free."""
    if device == "cuda":
        free, total = torch.cuda.mem_get_info()
        return free / 1e9, total / 1e9
    page = os.sysconf("SC_PAGE_SIZE") / 1e9
    total = os.sysconf("SC_PHYS_PAGES") * page
    knows_free = "SC_AVPHYS_PAGES" in os.sysconf_names
    return (os.sysconf("SC_AVPHYS_PAGES") * page if knows_free else total), total


def check_memory(parser, args, num_experts: int, bytes_per_parameter: int, what: str) -> None:
    """Exits with the parser's error if a model exceeds total memory; warns if it exceeds free memory."""
    if args.memory_of:  # the parent process has checked
        return
    count = count_parameters(args.model_size, num_experts)
    needed = count * bytes_per_parameter / 1e9
    free, total = machine_memory_gb(args.device)
    flags = f"--model_size {args.model_size} --num_experts {num_experts}"
    need = f"{flags}: {what} of {count / 1e6:.0f}M parameters take {needed:.1f} GB, plus activations"
    if needed > total:
        parser.error(
            f"{need}; this machine has {total:.1f} GB. Give a smaller --model_size or fewer --num_experts"
        )
    if needed > free:
        print(f"warning: {need}; {free:.1f} GB are free now (file cache not counted)", file=sys.stderr)


# ---- start and end of a script


def check_precision(parser, args) -> None:
    """Exits with the parser's error for a precision that the commands refuse on this device."""
    if args.mixed_precision == "fp16" and args.device == "cpu":
        parser.error("--mixed_precision fp16 needs a GPU; on a CPU give bf16 or no")


def prepare(settings) -> None:
    """Sets the log level of transformers, kernels as in the commands, the number of threads and the seed."""
    library_logging.set_verbosity_error()
    prepare_gpu()
    if settings.device == "cuda" and getattr(settings, "mixed_precision", "no") == "no":
        torch.set_float32_matmul_precision("high")  # TF32, as in the commands
    if settings.threads:
        torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)


def add_common_arguments(parser) -> None:
    parser.add_argument("--model_size", choices=list(SIZES), default="base", help="default base")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--mixed_precision",
        choices=list(PRECISIONS),
        default="no",
        help="products in this precision, as in training; no (default): float32, TF32 on a GPU",
    )
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 (default): torch's choice")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no_memory", action="store_true", help="do not measure peak memory")
    parser.add_argument("--memory_of", default="", help="only print the peak memory of one variant, in GB")


def parse_turns(parser, argv: list[str] | None, available: list[str], rounds: int):
    """Returns the parsed flags of a benchmark that runs its variants in turns, on a GPU if available."""
    add = parser.add_argument
    add(
        "--model_size",
        choices=SAVED_SIZES,
        default="embedded",
        help="default embedded; the others have random weights",
    )
    add(
        "--rounds",
        type=int,
        default=rounds,
        help=f"number of runs of each variant, in turns (default {rounds})",
    )
    add("--threads", type=int, default=1, help="CPU threads per process; 0: torch's choice (default 1)")
    add("--seed", type=int, default=0)
    add("--variants", nargs="+", help=f"default: all of {' '.join(available)}")
    args = parser.parse_args(argv)
    args.variants = chosen_variants(parser, args.variants, available)
    args.device = "cuda" if torch.cuda.is_available() else "cpu"
    return args


def chosen_variants(parser, names: list[str] | None, available: list[str]) -> list[str]:
    """Returns the named variants (None: all), in order; exits with the parser's error for an unknown name."""
    for name in names or []:
        if name not in available:
            parser.error(f"--variants {name} must be one of {' '.join(available)}")
    return [name for name in available if names is None or name in names]


def write_tables(table: pd.DataFrame, means: pd.DataFrame, path: Path | None) -> None:
    """Prints the means of a table. path: CSV file to write the table to, the means beside it (_means.csv)."""
    if path:
        path.write_text(table.round(4).to_csv(index=False))
        path.with_name(f"{path.stem}_means.csv").write_text(means.round(4).to_csv(index=False))
    print(means.round(3).to_string(index=False), file=sys.stderr)


def print_report(benchmark: str, settings, load: float, **measured: dict) -> None:
    """Prints one JSON line. load: the load average of the machine before timing started."""
    is_cuda = settings.device == "cuda"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    report = {
        "benchmark": benchmark,
        **describe_run(dataclasses.asdict(settings)),
        "device": torch.cuda.get_device_name() if is_cuda else f"{cores} CPU cores, {platform.machine()}",
        "threads": torch.get_num_threads(),
        "load_average_before": load,
        **rounded(measured),
    }
    print(json.dumps(report))


def rounded(values: dict) -> dict:
    """Returns nested dictionaries with floats of four digits, without values of None (not measured)."""
    nested = {name: rounded(value) if isinstance(value, dict) else value for name, value in values.items()}
    return {
        name: float(f"{value:.4g}") if isinstance(value, float) else value
        for name, value in nested.items()
        if value is not None
    }
