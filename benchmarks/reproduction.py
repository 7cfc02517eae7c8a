"""List the runs of a study, and estimate their hours here, as `reproduce_paper.sh --dry_run` does.

    python -m benchmarks.reproduction paper --model facebook/bart-base [flags of routing-moe study paper]
    python -m benchmarks.reproduction real-gym-train --train_dir data/gym

Optimizer steps and the generation of answers are timed on a model of the same sizes with random weights, for
each kind of routes, and multiplied by the numbers of steps and of rows. No weights are read; the sizes of
facebook/bart-base and -large are known without download. Writes a table hours.csv in --output_dir.
"""

import math
import random
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path

import pandas as pd
import torch
from transformers import AutoTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measuring, predict, train_step
from dataloader.encoding import TextFormat
from dataloader.errors import InputError, problem_context
from dataloader.gym import Gym
from dataloader.ontology import Ontology, ontology_path
from dataloader.task_splits import Split, load_split
from routing_moe.analysis.ablation.checks import testable
from routing_moe.analysis.features import features_of
from routing_moe.config.ablate import AblationSettings
from routing_moe.io.accelerator import make_accelerator
from routing_moe.io.hub import local_folder
from routing_moe.io.precision import chosen_precision
from routing_moe.model.loading import load_bart_config
from routing_moe.studies import real_gym
from routing_moe.studies.costed_runs import ABLATION, STEP, CostedRun
from routing_moe.studies.paper import PaperStudy
from routing_moe.studies.paper_runs import PaperRuns
from routing_moe.studies.real_runs import english_bart_run
from routing_moe.studies.real_settings import RealLabels
from routing_moe.studies.runs import run_in_turn, with_needs
from routing_moe.studies.study import part_of, run_study

STUDIES = {"paper": (PaperStudy, PaperRuns)} | {
    f"real-gym-{part}": (settings, runs) for part, (settings, runs, *_) in real_gym.PARTS.items()
}
StudyRuns = PaperRuns | real_gym.Branches | real_gym.UnseenRuns
PUBLISHED_SIZES = {"facebook/bart-base": "base", "facebook/bart-large": "large"}
# The kinds of steps and answers, and the variants of train_step.py and predict.py that measure them.
STEPS = {"plain": "plain", "straight_through": "straight_through", "dense": "softmax", "random": "random"}
ANSWERS = {"plain": "plain", "dense": "soft"}
ROWS = {"cpu": 8, "cuda": 32}  # in the batches that are timed
ROUNDS = 3  # timed steps and batches of each kind
# Of a section of random.json, where the gym lacks it: mean source and target tokens (from characters), rows
# of a dev and of a test file.
ASSUMED = {"train": (65, 6, 44, 8300), "test": (43, 10, 34, 2900)}
PADDING = 1.5  # tokens with padding over tokens, in steps cut by length; measured on CrossFit's gym
SAMPLES = 5  # of a task in CrossFit's gym
ROWS_PER_TASK = 32  # whose lengths are averaged


def estimate(kind: Callable, study: PaperStudy | real_gym.RealStudy) -> None:
    """Prints the settings, the runs and their hours. kind: class of the runs."""
    study = replace(study, dry_run=True)
    runs, model = kind(study), sized_model(study)
    print("settings of all runs:")
    for name, value in study.to_dict().items():
        print(f"    --{name} {value}")
    costed = [run for run in dict.fromkeys(with_needs(runs.all())) if isinstance(run, CostedRun)]
    hours = Hours(model_size(model), Texts(runs, model), runs)
    plan = pd.DataFrame([row_of(run, hours) for run in costed])
    print_runs(plan)
    print_summary(plan)
    print(hours.described())
    path = study.output_dir / "hours.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    plan.to_csv(path, index=False, float_format="%.4g")
    print(f"The same as a table: {path}")


def sized_model(study: PaperStudy | real_gym.RealStudy) -> str:
    """Returns a model of the sizes of the study's; one that the study makes is made without its warm-up."""
    if not getattr(study, "makes_model", False) or Path(study.model).is_dir():
        return study.model
    plain = replace(study, denoising_steps=0, model=str(study.english_bart / "bart"))
    if code := run_in_turn([english_bart_run(plain)]):
        raise SystemExit(code)
    return plain.model


def gym_and_split(runs: StudyRuns) -> tuple[Path, Split]:
    """Returns the gym and the split of a study; of one without its relabelled gym, those of the source."""
    if isinstance(runs.study, RealLabels) and not runs.split_file.is_file():
        return runs.study.train_dir, load_split(runs.study.split_file)
    return runs.gym, runs.split


def row_of(run: CostedRun, hours: "Hours") -> dict:
    return {
        "step": run.step,
        "run": run.name.split()[-1],
        "state": "finished" if run.is_finished else "to do",
        "training_h": hours.of_training(run),
        "answering_h": hours.of_answers(run),
        "folder": run.folder,
        "command": "; ".join(shlex.join(["python", "-m", *command]) for command in run.commands()),
    }


class Texts:
    """Lengths of texts and numbers of rows of the study's gym; of tasks that it lacks, assumed values."""

    def __init__(self, runs: StudyRuns, model: str):
        self.folder, self.split = gym_and_split(runs)
        self.gym = Gym(self.folder, skip_malformed=True) if self.folder.is_dir() else None
        self.known = set(self.gym.tasks()) if self.gym else set()
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(local_folder(model), local_files_only=True)
        except (OSError, ValueError, InputError):  # not on this machine: lengths are assumed
            self.tokenizer = None

    def tasks(self, section: str) -> list[str]:
        """Returns the tasks of a section that the gym has."""
        return [task for task in self.split.section(section) if task in self.known]

    def lengths(self, section: str) -> tuple[float, float]:
        """Returns mean source and target tokens of a section's train rows."""
        rows, rng = [], random.Random(0)
        for task in self.tasks(section) if self.tokenizer else ():
            examples = self.gym.examples(task, "train", "first")
            rows += rng.sample(examples, min(ROWS_PER_TASK, len(examples)))
        if not rows:
            return ASSUMED[section][:2]
        text = TextFormat()
        pairs = [(text.source(row), text.target(row.outputs[0])) for row in rows]
        counts = [self.tokenizer(list(side))["input_ids"] for side in zip(*pairs, strict=True)]
        source, target = (sum(map(len, ids)) / len(ids) for ids in counts)
        return source, target

    def rows(self, section: str, part: str, samples: tuple[str, ...], most: int | None) -> int:
        """Returns the rows of files. samples: all, first, or seeds. most: of each file; None: all."""
        tasks, limit = self.tasks(section), most or math.inf
        named = [
            (task, sample)
            for task in tasks
            for name in samples
            for sample in self.gym.named_samples(task, name)
        ]
        counts = [min(limit, lines(self.folder / task, f"{sample}_{part}")) for task, sample in named]
        n_lacking = len(self.split.section(section)) - len(tasks)
        n_files = n_lacking * (SAMPLES if samples == ("all",) else len(samples))
        return sum(counts) + n_files * int(min(limit, ASSUMED[section][2 if part == "dev" else 3]))


def lines(folder: Path, stem: str) -> int:
    """Returns the number of lines of a task file of either format, without empty ones; 0 if there is none."""
    for path in folder.glob(f"{stem}.*"):
        with path.open("rb") as file:
            return sum(1 for line in file if line.strip())
    return 0


@dataclass
class Hours:
    """Hours of runs, from the seconds of steps and answers on this machine. size: as in `measuring.SIZES`."""

    size: str
    texts: Texts
    runs: StudyRuns
    num_experts: int = 3

    def __post_init__(self):
        accelerator = make_accelerator(chosen_precision(self.runs.study.mixed_precision or "no"))
        self.device = "cuda" if accelerator.device.type == "cuda" else "cpu"
        self.precision = accelerator.mixed_precision or "no"
        self.timed = dict(model_size=self.size, num_experts=self.num_experts, batch_size=ROWS[self.device])
        self.timed |= dict(device=self.device, mixed_precision=self.precision, steps=ROUNDS)
        self.lengths = {section: self.texts.lengths(section) for section in ASSUMED}

    def of_training(self, run: CostedRun) -> float:
        """Returns the hours of a run's optimizer steps; NaN for a run without such steps."""
        seconds = 0.0
        for work in run.work:
            scale = sum(self.lengths[work.section]) / sum(self.lengths["train"])
            passes, update = self.steps[work.kind]
            seconds += work.steps * sum(batch / STEP * scale * passes + update for batch in work.batches)
        return seconds / 3600 if run.work else math.nan

    def of_answers(self, run: CostedRun) -> float:
        """Returns the hours of a run's answers; NaN for a run without any."""
        seconds = 0.0
        for files in run.answers:
            times = self.ablations if files.times == ABLATION else files.times
            rows = self.texts.rows(files.section, files.part, files.samples, files.most)
            seconds += times * rows * self.answers[files.section][files.kind]
        return seconds / 3600 if run.answers else math.nan

    @cached_property
    def steps(self) -> dict[str, tuple[float, float]]:
        """{kind: seconds of the passes of a step of STEP train rows, and of its update}."""
        source, target = (math.ceil(PADDING * length) for length in self.lengths["train"])
        variants = tuple(STEPS.values())
        settings = train_step.Settings(
            source_length=source, target_length=target, variants=variants, **self.timed
        )
        measuring.prepare(settings)
        measured, passes = train_step.measure_with(settings), STEP / settings.batch_size
        return {
            kind: (passes * measured[name]["forward_backward_s"], measured[name]["optimizer_s"])
            for kind, name in STEPS.items()
        }

    @cached_property
    def answers(self) -> dict[str, dict[str, float]]:
        """{section: {kind: seconds of a row}}, in batches of one length."""
        beams = flag_of(self.runs, "--num_beams", 4)
        seconds = {}
        for section, (source, target) in self.lengths.items():
            settings = predict.Settings(
                source_length=math.ceil(source),
                new_tokens=math.ceil(target),
                num_beams=beams,
                variants=tuple(ANSWERS.values()),
                **self.timed,
            )
            measuring.prepare(settings)
            model = measuring.build_routing_model(settings, self.num_experts).eval()
            plain = model.to_bart(measuring.one_hot_routes(model, 1)[0])
            calls = {name: predict.make_call(name, model, plain, settings) for name in settings.variants}
            medians = measuring.measure(calls, ROUNDS)
            seconds[section] = {
                k: medians[name]["median_s"] / settings.batch_size for k, name in ANSWERS.items()
            }
        return seconds

    @cached_property
    def ablations(self) -> int:
        """How often `ablate --features all` scores the model, at most; once with all experts."""
        tasks, folder = self.texts.split.train, self.texts.folder
        features = features_of(tasks, Ontology.load(ontology_path(folder, None)), folder)
        draws = AblationSettings(run=Path()).random_draws
        return 1 + sum(measuring.layers(self.size)) * self.num_experts + len(testable(features)) * (1 + draws)

    def described(self) -> str:
        """Returns what was measured and what the hours include."""
        device = (
            torch.cuda.get_device_name()
            if self.device == "cuda"
            else f"a CPU, {torch.get_num_threads()} threads"
        )
        texts = [
            f"{section} tasks: {source:.0f} source and {target:.0f} target tokens a row, of "
            f"{len(self.texts.tasks(section))} tasks"
            for section, (source, target) in self.lengths.items()
        ]
        steps = ", ".join(f"{kind} {sum(seconds):.3g}" for kind, seconds in self.steps.items())
        return f"""
Measured on {device}: medians of {ROUNDS} steps and batches of answers of {ROWS[self.device]} rows,
{self.num_experts} experts, precision {self.precision}.
{"; ".join(texts)}; values of tasks that the gym lacks are assumed.
Seconds of a step of {STEP} train rows: {steps}. Padding is taken as {PADDING} times.
Random routes are drawn five times, and each of their answers takes as long as one of all experts.
Not included: text vectors, reduction, figures, losses (on dev files, of answers, of re-assignments), loading
models and data, making --model, and runs whose work is not known, which are not listed either (of
real-gym-unseen: scores without training, and the further steps and means of weights that starts are made by).
Timed as others: ranked answers as generated ones; mixtures of more experts as of {self.num_experts}; low-rank
experts and tokens as a plain BART; the wide BART as a narrow one of as many steps.
Overestimated: steps of Fisher vectors, counted as steps of the whole model, and the number of ablations."""


def flag_of(runs: StudyRuns, flag: str, default: int) -> int:
    """Returns the value of a flag in the study's trainings."""
    command = runs.recipe.train("", *runs.training_flags(0), "--num_experts", "1")
    values = [value for name, value in pairwise(command) if name == flag]
    return int(values[-1]) if values else default


def model_size(model: str) -> str:
    """Returns the name in `measuring.SIZES` of a model's sizes; no weights are read.

    Raises InputError if there is no configuration, neither here nor on the hub, and the name is not known.
    """
    if known := PUBLISHED_SIZES.get(model):  # whose sizes need no connection
        return known
    with problem_context("--model "):
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
    texts = [
        "-" if math.isnan(hours) else f"{hours:.0f}" if hours >= 100 else f"{hours:.3g}" for hours in values
    ]
    return " ".join(f"{text:>10}" for text in texts)


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


def main(argv: list[str] | None = None) -> int:
    (settings, runs), line = part_of(argv, "STUDY", STUDIES)
    return run_study(partial(estimate, runs), settings, line, __doc__)


if __name__ == "__main__":
    sys.exit(main())
