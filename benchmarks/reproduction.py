"""List the runs of a study, and estimate their hours here, as `reproduce_paper.sh --dry_run` does.

    python -m benchmarks.reproduction paper --model facebook/bart-base [flags of routing_moe.studies.paper]
    python -m benchmarks.reproduction real_gym --train_dir data/gym

Optimizer steps and the generation of answers are timed on a model of the same sizes with random weights, for
each kind of routes, and multiplied by the numbers of steps and of rows. No weights are read; the sizes of
facebook/bart-base and -large are known without download. Writes a table hours.csv in --output_dir.
"""

import math
import shlex
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
from routing_moe.io.precision import chosen_precision
from routing_moe.model.loading import load_bart_config
from routing_moe.optim.state_memory import State
from routing_moe.studies.paper import PaperStudy
from routing_moe.studies.paper_runs import ABLATION, STEP, CostedRun, PaperRuns
from routing_moe.studies.real_gym import RealGymStudy
from routing_moe.studies.runs import run_in_turn
from routing_moe.studies.study import run_study

STUDIES = {"paper": PaperStudy, "real_gym": RealGymStudy}
PUBLISHED_SIZES = {"facebook/bart-base": "base", "facebook/bart-large": "large"}
NOT_INCLUDED = (
    "text vectors, reduction, figures, losses on dev files, loading models and data, making --model"
)


@dataclass(frozen=True)
class Timing:
    """What is timed. steps: measured steps of each kind."""

    model: str
    longest: tuple[int, int]
    num_beams: int
    precision: str
    device: str
    num_experts: int = 3
    steps: int = 3


def estimate(study: PaperStudy) -> None:
    """Prints the settings, the runs and their hours."""
    runs = PaperRuns(study)
    model = study.model
    if study.english_bart:  # without the warm-up, of the same sizes
        run_in_turn(PaperRuns(study, warm_up_steps=0).model())
        model = str(study.english_bart / "bart")
    print("settings of all runs:")
    for name, value in study.to_dict().items():
        print(f"    --{name} {value}")
    costed = [run for run in runs.all() if isinstance(run, CostedRun)]
    accelerator = make_accelerator(chosen_precision(study.mixed_precision or "no"))
    timing = timing_of(runs, model, accelerator)
    data = GymData(study.gym, study.custom_tasks_splits, model, timing.longest)
    size = add_size(model)
    check_memory(size, timing)
    batches = DeviceBatches.on(accelerator, size, timing.num_experts, timing.num_beams)
    times = Times.measure(
        size, data, batches, [run.work for run in costed], [run.answers for run in costed], timing
    )
    n_ablations = ablations(size, data, timing.num_experts)
    plan = pd.DataFrame([row_of(run, data, times, n_ablations) for run in costed])
    print_runs(plan)
    print_summary(plan)
    print_method(timing, data, times)
    path = study.output_dir / "hours.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    plan.to_csv(path, index=False, float_format="%.4g")
    print(f"The same as a table: {path}")


def timing_of(runs: PaperRuns, model: str, accelerator) -> Timing:
    """Returns the lengths, beams and precision of the study's trainings."""
    command = runs.recipe.train("", *runs.training_flags(0), "--num_experts", "1")
    given = {word: command[i + 1] for i, word in enumerate(command[:-1]) if word.startswith("--")}
    longest = int(given.get("--max_input_length", 512)), int(given.get("--max_output_length", 64))
    device = "cuda" if accelerator.device.type == "cuda" else "cpu"
    return Timing(model, longest, int(given.get("--num_beams", 4)), accelerator.mixed_precision, device)


# ---- hours


def row_of(run: CostedRun, data: GymData, times: Times, n_ablations: int) -> dict:
    return {
        "step": run.step,
        "run": run.name.split()[1],
        "state": "finished" if run.is_finished else "to do",
        "training_h": training_hours(run, data, times),
        "answering_h": answering_hours(run, data, times, n_ablations),
        "folder": run.folder,
        "command": "; ".join(shlex.join(["python", "-m", *command]) for command in run.commands()),
    }


def training_hours(run: CostedRun, data: GymData, times: Times) -> float:
    """Returns the hours of a run's optimizer steps; NaN for a run without such steps."""
    seconds = 0.0
    for work in run.work:
        cut = times.batches.cuts[work.kind]
        shapes = [data.step_shape(work.section, batch, cut) for batch in work.batches]
        seconds += work.steps * sum(times.step(work.kind, *shape) for shape in shapes)
    return seconds / 3600 if run.work else math.nan


def answering_hours(run: CostedRun, data: GymData, times: Times, n_ablations: int) -> float:
    """Returns the hours of a run's answers; NaN for a run without any."""
    seconds = 0.0
    for files in run.answers:
        repeated = n_ablations if files.times == ABLATION else files.times
        rows = data.file_rows(files.section, files.part, files.samples, files.most)
        pools = rows if run.alone else [sum(rows)]
        seconds += repeated * sum(times.answering(files.kind, files.section, count) for count in pools)
    return seconds / 3600 if run.answers else math.nan


def ablations(size: str, data: GymData, num_experts: int) -> int:
    """Returns how often `ablate --features all` scores the model, at most; once with all experts."""
    tasks = data.split.train
    features = features_of(tasks, Ontology.load(ontology_path(data.folder, None)), data.folder)
    draws = AblationSettings(run=Path()).random_draws
    return 1 + sum(measuring.layers(size)) * num_experts + len(testable(features)) * (1 + draws)


# ---- sizes


def check_memory(size: str, args: Timing) -> None:
    """Raises InputError if the model and its optimizer exceed the memory of the machine."""
    state = State.of(measuring.model_config(size, args.num_experts), frozen=())
    needed, total = state.bytes / 1e9, measuring.machine_memory_gb(args.device)[1]
    if needed > total:
        raise InputError(
            f"--model {args.model} with {args.num_experts} experts: weights, gradients and AdamW's state of "
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
    with fault_context("--model "):
        config = load_bart_config(model)
    if config.encoder_ffn_dim != config.decoder_ffn_dim:
        raise InputError(f"--model {model}: encoder and decoder differ in width, which cannot be timed")
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


def print_method(args: Timing, data: GymData, times: Times) -> None:
    """Prints what was measured and what the hours include."""
    is_cuda = args.device == "cuda"
    device = torch.cuda.get_device_name() if is_cuda else f"a CPU with {torch.get_num_threads()} threads"
    print(f"""
Measured on {device} (load average before: {times.load:.1f}; other jobs make steps slower):
medians of {args.steps} steps and {ANSWER_ROUNDS} batches of answers after a warm-up, random weights of
the sizes of {args.model}, {args.num_experts} experts. Batches are those of runs on this device.""")
    for section, parts in (("train", ["dev"]), ("test", ["dev", "test"])):
        S, T = data.mean_lengths(section)
        rows = ", ".join(f"{data.rows(section, part, ('first',))} {part}" for part in parts)
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


def main(argv: list[str] | None = None) -> int:
    name, *given = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name not in STUDIES:
        print(f"{__doc__}\nstudies: {', '.join(STUDIES)}")
        return 0 if name in ("-h", "--help") else 2
    return run_study(estimate, STUDIES[name], given, __doc__)


if __name__ == "__main__":
    sys.exit(main())
