"""List the runs of example_scripts/reproduce_paper.sh, and estimate their hours on this machine.

    python -m benchmarks.reproduction models/reproduce_paper/plan.tsv --model facebook/bart-base \\
        --gym data/gym --split dataloader/splits/random.json

`reproduce_paper.sh --dry_run` calls it with the plan that it writes. Optimizer steps of a model of its sizes
with random weights are timed for each kind of routes, and multiplied by the numbers of steps. No weights are
read; the sizes of facebook/bart-base and -large are known without download. Writes plan.csv beside the plan.
"""

import argparse
import math
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers import AutoConfig, AutoTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measuring, train_step
from dataloader.batching import micro_batches
from dataloader.errors import InputError
from dataloader.gym import Gym
from dataloader.task_splits import load_split

# The kinds of steps in a plan, and the variants of train_step.py that measure them.
KINDS = {"plain": "plain", "straight_through": "straight_through", "dense": "softmax", "random": "random"}
PUBLISHED_SIZES = {"facebook/bart-base": "base", "facebook/bart-large": "large"}
CHARACTERS_PER_TOKEN = 4.5  # of English and BART's tokenizer, if the tokenizer is not on this machine
# Padded mean lengths of 80 train tasks of CrossFit's gym in tokens, if there is no gym.
ASSUMED_LENGTHS = (75, 14)
EXAMPLES_PER_TASK = 32
STEP = 32  # examples in a training step
MOST_TOKENS = 16384  # in a micro-batch, the default of training
MEASURED = (4, 16)  # examples in a micro-batch whose time is measured, for small and large steps
NOT_INCLUDED = (
    "dev and test scores, text vectors, reduction, zero-shot scores, figures, loading models and data"
)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    plan = pd.read_csv(args.plan, sep="\t", dtype=str)
    try:
        size = add_size(args.model)
        lengths, described = mean_lengths(args)
    except InputError as error:
        print("\n".join(f"error: {fault}" for fault in error.faults), file=sys.stderr)
        return 2
    folders = [Path(folder, result) for folder, result in zip(plan["folder"], plan["result"], strict=True)]
    plan["state"] = ["finished" if path.is_file() else "to do" for path in folders]
    work = [parse_work(text) for text in plan["work"]]
    used = {each[0] for each in work if each}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    load = os.getloadavg()[0]
    times = {B: measure(size, B, lengths, used, device, args) for B in MEASURED}
    seconds = step_seconds(times, device)
    plan["hours"] = [hours(each, seconds) for each in work]
    print_runs(plan)
    print_summary(plan)
    print_method(args, lengths, described, seconds, [kind for kind in KINDS if kind in used], load)
    path = Path(args.plan).with_suffix(".csv")
    plan.drop(columns=["needs", "work"]).to_csv(path, index=False, float_format="%.4g")
    print(f"The same as a table: {path}")
    return 0


# ---- hours


def parse_work(text: str) -> tuple[str, int, list[int]] | None:
    """Returns (kind of step, steps at each batch size, batch sizes) of "plain:1000:2,4"; None of "-"."""
    if text == "-":
        return None
    kind, steps, batches = text.split(":")
    return kind, int(steps), [int(batch) for batch in batches.split(",")]


def hours(work: tuple[str, int, list[int]] | None, seconds: Callable[[str, int], float]) -> float:
    """Returns the hours of a run's optimizer steps; NaN for a run without such steps."""
    if work is None:
        return math.nan
    kind, steps, batches = work
    return sum(steps * seconds(kind, batch) for batch in batches) / 3600


def step_seconds(times: dict[int, dict], device: str) -> Callable[[str, int], float]:
    """Returns the function (kind, batch size) -> seconds of an optimizer step.

    times: {examples in a micro-batch: {kind: measurements}}. A step has forward and backward passes of
    micro-batches of the largest measured size that it fills, and one update. On a CPU the time of a pass is
    proportional to the examples; on a GPU a micro-batch that is not full takes as long as a full one.
    """

    def seconds(kind: str, batch: int) -> float:
        B = max((B for B in times if batch >= B), default=min(times))
        passes = math.ceil(batch / B) if device == "cuda" else batch / B
        return passes * times[B][kind]["forward_backward_s"] + times[B][kind]["optimizer_s"]

    return seconds


def measure(size: str, B: int, lengths: tuple[int, int], kinds: set[str], device: str, args) -> dict:
    """Returns {kind: medians of `train_step`} for micro-batches of B examples."""
    S, T = lengths
    settings = train_step.Settings(
        model_size=size,
        num_experts=[args.num_experts],
        batch_size=B,
        source_length=S,
        target_length=T,
        second_shape="",
        tasks_per_batch=0,
        steps=args.steps,
        variants=[KINDS[kind] for kind in KINDS if kind in kinds],
        device=device,
        threads=0,
        seed=0,
        no_memory=True,
        memory_of="",
    )
    measuring.prepare(settings)
    measured = train_step.measure_with(args.num_experts, settings, {})
    return {kind: measured[KINDS[kind]] for kind in kinds}


# ---- sizes and lengths


def add_size(model: str) -> str:
    """Returns the name in `measuring.SIZES` of a model's sizes; no weights are read.

    Raises InputError if there is no configuration, neither here nor on the hub, and the name is not known.
    """
    known = PUBLISHED_SIZES.get(model)
    try:
        # The sizes of known names need no connection, whose failure takes half a minute.
        config = AutoConfig.from_pretrained(model, local_files_only=known is not None)
    except OSError as error:
        if known is None:
            raise InputError(f"MODEL {model}: its configuration cannot be read: {error}") from None
        print(f"{model} is not on this machine; its published sizes: {measuring.SIZES[known]}")
        return known
    if config.encoder_layers != config.decoder_layers or config.encoder_ffn_dim != config.decoder_ffn_dim:
        raise InputError(f"MODEL {model}: encoder and decoder differ in size, which cannot be timed")
    measuring.SIZES["given"] = dict(
        layers=config.encoder_layers,
        d_model=config.d_model,
        ffn=config.encoder_ffn_dim,
        heads=config.encoder_attention_heads,
        vocab=config.vocab_size,
        positions=config.max_position_embeddings,
    )
    return "given"


def mean_lengths(args) -> tuple[tuple[int, int], str]:
    """Returns (source, target) tokens, means over padded micro-batches, and where they are from."""
    tasks = load_split(args.split).train
    known = set(Gym(args.gym).tasks()) if Path(args.gym).is_dir() else set()
    tasks = [task for task in tasks if task in known]
    if not tasks:
        S, T = (min(pair) for pair in zip(ASSUMED_LENGTHS, args.longest, strict=True))
        return (S, T), f"assumed, because {args.gym} has no train task of {args.split}"
    rng = random.Random(0)
    rows = []
    for task in tasks:
        examples = Gym(args.gym, skip_malformed=True).examples(task, "train", "first")
        rows += rng.sample(examples, min(EXAMPLES_PER_TASK, len(examples)))
    rng.shuffle(rows)
    count, described = token_counter(args.model)
    lengths = np.array([[count(row.input), count(row.outputs[0])] for row in rows])
    lengths = np.minimum(lengths, args.longest)
    padded = np.zeros_like(lengths)
    for first in range(0, len(lengths), STEP):
        step = lengths[first : first + STEP]
        for group in micro_batches(*step.T, max_tokens=MOST_TOKENS, max_examples=STEP):
            padded[first + group] = step[group].max(axis=0)
    S, T = padded.mean(axis=0).round()
    return (int(S), int(T)), f"of {len(rows)} train examples of {len(tasks)} tasks in {args.gym}, {described}"


def token_counter(model: str) -> tuple[Callable[[str], int], str]:
    """Returns a function that counts the tokens of a text, special ones included, and how it counts."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
    except (OSError, ValueError):
        return lambda text: math.ceil(len(text) / CHARACTERS_PER_TOKEN) + 2, "from characters, 4.5 per token"
    return lambda text: len(tokenizer(text)["input_ids"]), "by its tokenizer"


# ---- what is printed


def print_runs(plan: pd.DataFrame) -> None:
    print("step, run, state, hours, folder; command")
    for row in plan.itertuples():
        shown = "" if math.isnan(row.hours) else f"{row.hours:.3g} h"
        print(f"{row.step:<14} {row.run:<24} {row.state:<8} {shown:>9}  {row.folder}\n    {row.command}")


def print_summary(plan: pd.DataFrame) -> None:
    """Prints the number of runs and the hours of each step."""
    print(f"\n{'step':<14} {'runs':>5} {'to do':>6} {'hours':>9} {'to do':>9}")
    for step, rows in [*plan.groupby("step", sort=False), ("all", plan)]:
        todo = rows[rows["state"] == "to do"]
        sums = [each["hours"].sum(min_count=1) for each in (rows, todo)]
        shown = " ".join(f"{'-' if math.isnan(total) else f'{total:.4g}':>9}" for total in sums)
        print(f"{step:<14} {len(rows):>5} {len(todo):>6} {shown}")


def print_method(
    args, lengths: tuple[int, int], described: str, seconds, kinds: list[str], load: float
) -> None:
    """Prints what was measured and what the hours include. seconds: see `step_seconds`."""
    is_cuda = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if is_cuda else f"a CPU with {torch.get_num_threads()} threads"
    print(f"""
Measured on {device} (load average before: {load:.1f}; other jobs make steps slower): medians of {args.steps}
steps after a warm-up step, random weights of the sizes of {args.model}, {args.num_experts} experts.
Lengths: {lengths[0]} source and {lengths[1]} target tokens with padding, {described}.""")
    for batch in (STEP, 4):
        measured = ", ".join(f"{kind} {seconds(kind, batch):.3g}" for kind in kinds)
        print(f"Seconds of a step of {batch} examples: {measured}.")
    print(f"""Hours are of optimizer steps (forward, backward, update in float32), one run after the other.
Not included: {NOT_INCLUDED}.
Steps of Fisher vectors are counted as steps of the whole model, which overestimates them.""")


def parse(argv: list[str] | None):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reproduction",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("plan", help="plan.tsv of reproduce_paper.sh")
    add("--model", required=True, help="plain BART, a hub name or a folder")
    add("--gym", required=True, help="gym folder, for the lengths of its texts; it need not exist")
    add("--split", required=True, help="task split JSON")
    add(
        "--longest",
        type=int,
        nargs=2,
        default=[512, 64],
        help="most tokens of input, output (default 512 64)",
    )
    add("--num_experts", type=int, default=3, help="experts per layer (default 3)")
    add("--steps", type=int, default=3, help="measured steps of each kind (default 3)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
