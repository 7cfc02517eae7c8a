"""List the runs of example_scripts/reproduce_paper.sh, and estimate their hours on this machine.

    python -m benchmarks.reproduction models/reproduce_paper/plan.tsv --model facebook/bart-base \\
        --gym data/gym --split dataloader/splits/random.json

`reproduce_paper.sh --dry_run` calls it with the plan that it writes. Optimizer steps and the generation of
answers are timed on a model of its sizes with random weights, for each kind of routes, and multiplied by the
numbers of steps and of rows. No weights are read; the sizes of facebook/bart-base and -large are known
without download. Writes a table .csv beside the plan.
"""

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measuring
from benchmarks.reproduction_batches import DeviceBatches
from benchmarks.reproduction_data import GymData
from benchmarks.reproduction_times import ANSWER_ROUNDS, MEASURED, Times
from dataloader.errors import InputError, fault_context
from dataloader.ontology import Ontology, ontology_path
from routing_moe.analysis.ablation.checks import testable
from routing_moe.analysis.features import features_of
from routing_moe.config.ablate import AblationSettings
from routing_moe.io.accelerator import make_accelerator
from routing_moe.io.precision import chosen_precision, precision_faults
from routing_moe.model.loading import load_bart_config
from routing_moe.optim.state_memory import State

PUBLISHED_SIZES = {"facebook/bart-base": "base", "facebook/bart-large": "large"}
STEP = 32  # examples in a training step
ALONE = "few_shot"  # the step whose files are answered one by one; in others, all files of a run together
NOT_INCLUDED = (
    "text vectors, reduction, drawing of figures, losses on dev files, loading models and data, making MODEL"
)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    plan = pd.read_csv(args.plan, sep="\t", dtype=str)
    try:
        data = GymData(args.gym, args.split, args.model, tuple(args.longest))
        size = add_size(args.model)
        works = [parse_work(text) for text in plan["work"]]
        answers = [parse_answers(text) for text in plan["answers"]]
        accelerator = make_accelerator(args.precision)
        args.device = "cuda" if accelerator.device.type == "cuda" else "cpu"
        check_memory(size, args)
        batches = DeviceBatches.on(accelerator, size, args.num_experts, args.num_beams)
        times = Times.measure(size, data, batches, works, answers, args)
        n_ablations = ablations(size, data, args.num_experts)
        plan["training_h"] = [training_hours(work, data, times) for work in works]
        plan["answering_h"] = [
            answering_hours(each, data, times, n_ablations, alone=step == ALONE)
            for each, step in zip(answers, plan["step"], strict=True)
        ]
    except InputError as error:
        print("\n".join(f"error: {fault}" for fault in error.faults), file=sys.stderr)
        return 2
    folders = [Path(folder, result) for folder, result in zip(plan["folder"], plan["result"], strict=True)]
    plan["state"] = ["finished" if path.is_file() else "to do" for path in folders]
    print_runs(plan)
    print_summary(plan)
    print_method(args, data, times)
    path = Path(args.plan).with_suffix(".csv")
    plan.drop(columns=["needs", "work", "answers"]).to_csv(path, index=False, float_format="%.4g")
    print(f"The same as a table: {path}")
    return 0


# ---- hours


@dataclass(frozen=True)
class Work:
    """Optimizer steps of a run, as many at each batch size, on rows of a section of the split."""

    kind: str
    steps: int
    batches: list[int]
    section: str


@dataclass(frozen=True)
class Answering:
    """Files that a run answers. times: how often, or "ablation", once for each set of ablated experts.

    samples: as for `GymData.rows`. most: rows of each file, None: all.
    """

    kind: str
    section: str
    part: str
    samples: str
    most: int | None
    times: str


def parse_work(text: str) -> list[Work]:
    """Returns the work of "plain:1000:2,4:test;random:500:32:train"; [] of "-"."""
    found = []
    for each in text.split(";") if text != "-" else ():
        kind, steps, batches, section = each.split(":")
        found.append(Work(kind, int(steps), [int(batch) for batch in batches.split(",")], section))
    return found


def parse_answers(text: str) -> list[Answering]:
    """Returns the files of "plain:train/dev/first:40;plain:train/test/100,13/200:1"; [] of "-"."""
    found = []
    for each in text.split(";") if text != "-" else ():
        kind, files, times = each.split(":")
        section, part, samples, *most = files.split("/")
        found.append(Answering(kind, section, part, samples, int(most[0]) if most else None, times))
    return found


def training_hours(work: list[Work], data: GymData, times: Times) -> float:
    """Returns the hours of a run's optimizer steps; NaN for a run without such steps."""
    if not work:
        return math.nan
    seconds = 0.0
    for each in work:
        cut = times.batches.cuts[each.kind]
        shapes = [data.step_shape(each.section, batch, cut) for batch in each.batches]
        seconds += each.steps * sum(times.step(each.kind, *shape) for shape in shapes)
    return seconds / 3600


def answering_hours(
    answers: list[Answering], data: GymData, times: Times, n_ablations: int, alone: bool = False
) -> float:
    """Returns the hours of a run's answers; NaN for a run without any.

    alone: whether each file is answered alone.
    """
    if not answers:
        return math.nan
    seconds = 0.0
    for each in answers:
        repeated = n_ablations if each.times == "ablation" else int(each.times)
        files = data.file_rows(each.section, each.part, each.samples, each.most)
        pools = files if alone else [sum(files)]
        seconds += repeated * sum(times.answering(each.kind, each.section, rows) for rows in pools)
    return seconds / 3600


def ablations(size: str, data: GymData, num_experts: int) -> int:
    """Returns how often `ablate --features all` scores the model, at most; once with all experts."""
    tasks = data.split.train
    features = features_of(tasks, Ontology.load(ontology_path(data.folder, None)), data.folder)
    draws = AblationSettings(run=Path()).random_draws
    return 1 + sum(measuring.layers(size)) * num_experts + len(testable(features)) * (1 + draws)


# ---- sizes


def check_memory(size: str, args) -> None:
    """Raises InputError if the model and its optimizer exceed the memory of the machine."""
    state = State.of(measuring.model_config(size, args.num_experts), frozen=())
    needed, total = state.bytes / 1e9, measuring.machine_memory_gb(args.device)[1]
    if needed > total:
        raise InputError(
            f"MODEL {args.model} with {args.num_experts} experts: weights, gradients and AdamW's state of "
            f"{state.parameters / 1e6:.0f}M parameters take {needed:.1f} GB, plus activations; this machine "
            f"has {total:.1f} GB"
        )


def add_size(model: str) -> str:
    """Returns the name in `measuring.SIZES` of a model's sizes; no weights are read.

    Raises InputError if there is no configuration, neither here nor on the hub, and the name is not known.
    """
    known = PUBLISHED_SIZES.get(model)
    if known:  # whose sizes need no connection
        return known
    with fault_context("MODEL "):
        config = load_bart_config(model)
    if config.encoder_ffn_dim != config.decoder_ffn_dim:
        raise InputError(f"MODEL {model}: encoder and decoder differ in width, which cannot be timed")
    measuring.SIZES["given"] = dict(
        layers=config.encoder_layers,
        decoder_layers=config.decoder_layers,
        d_model=config.d_model,
        ffn=config.encoder_ffn_dim,
        heads=config.encoder_attention_heads,
        vocab=config.vocab_size,
        positions=config.max_position_embeddings,
    )
    return "given"


# ---- what is printed


def hours_of(values: list[float]) -> str:
    """Returns numbers in columns, with - for those that are not estimated."""
    shown = ["-" if math.isnan(each) else f"{each:.0f}" if each >= 100 else f"{each:.3g}" for each in values]
    return " ".join(f"{each:>10}" for each in shown)


def print_runs(plan: pd.DataFrame) -> None:
    print("step, run, state, hours of training, of answering, folder; command")
    for row in plan.itertuples():
        hours = hours_of([row.training_h, row.answering_h])
        print(f"{row.step:<14} {row.run:<24} {row.state:<8} {hours}  {row.folder}\n    {row.command}")


def print_summary(plan: pd.DataFrame) -> None:
    """Prints the number of runs and the hours of each step."""
    columns = ["training_h", "answering_h"]
    print(
        f"\n{'step':<14} {'runs':>5} {'to do':>6} {'training':>10} {'answering':>10} {'to do':>10}  (hours)"
    )
    for step, rows in [*plan.groupby("step", sort=False), ("all", plan)]:
        todo = rows[rows["state"] == "to do"]
        sums = [*rows[columns].sum(min_count=1), todo[columns].sum(min_count=1).sum(min_count=1)]
        print(f"{step:<14} {len(rows):>5} {len(todo):>6} {hours_of(sums)}")


def print_method(args, data: GymData, times: Times) -> None:
    """Prints what was measured and what the hours include."""
    is_cuda = args.device == "cuda"
    device = torch.cuda.get_device_name() if is_cuda else f"a CPU with {torch.get_num_threads()} threads"
    print(f"""
Measured on {device} (load average before: {times.load:.1f}; other jobs make steps slower):
medians of {args.steps} steps and {ANSWER_ROUNDS} batches of answers after a warm-up, random weights of
the sizes of {args.model}, {args.num_experts} experts. Batches are those of runs on this device.""")
    for section, parts in (("train", ["dev"]), ("test", ["dev", "test"])):
        S, T = data.mean_lengths(section)
        rows = ", ".join(f"{data.rows(section, part, 'first')} {part}" for part in parts)
        print(f"{section} tasks: {data.described(section)}.")
        print(f"    {rows} rows of first samples. A row has {S} source and {T} target tokens; up to")
        print(f"    {times.at_once[section]} rows are answered at once.")
    for section, batch in (("train", STEP), ("test", 4)):
        for kind in times.passes:
            tokens, count = data.step_shape(section, batch, times.batches.cuts[kind])
            print(
                f"A {kind} step of {batch} rows of {section} tasks: {tokens / batch:.0f} tokens a row with "
                f"padding, {count:.1f} micro-batches, {times.step(kind, tokens, count):.3g} s."
            )
    for (kind, section), measured in times.answers.items():
        seconds = ", ".join(f"{rows} rows {value:.3g}" for rows, value in measured.items())
        print(f"Seconds of {kind} answers with {args.num_beams} beams, {section} tasks: {seconds}.")
    small, large = MEASURED[args.device]
    precision = {"no": "TF32" if is_cuda else "float32"}.get(args.precision, args.precision)
    print(f"""Products in {precision}.
Training: optimizer steps (forward, backward, update), one run after the other. A pass takes seconds per
padded token and per micro-batch, which fit micro-batches of {small} and {large} rows.
Answering: dev files at every evaluation, zero-shot and few-shot dev and test files, ablation. Answers are
as long as the mean target. A batch takes seconds per row and per batch, which fit the two that were timed.
Random routes are drawn five times, and each of their answers takes as long as one of all experts.
Not included: {NOT_INCLUDED}.
Overestimated: steps of Fisher vectors, counted as steps of the whole model; the number of ablations, if
random sets of experts cannot be matched.""")


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
    add("--num_beams", type=int, default=4, help="beams of generation (default 4)")
    add("--steps", type=int, default=3, help="measured steps of each kind (default 3)")
    add(
        "--mixed_precision",
        choices=("auto", *measuring.PRECISIONS),
        default="no",
        help="precision of products, as in training (default no)",
    )
    args = parser.parse_args(argv)
    for fault in precision_faults(args):
        parser.error(fault)
    args.precision = chosen_precision(args.mixed_precision)
    return args


if __name__ == "__main__":
    sys.exit(main())
