"""Time and memory of a fine-tuning grid: in one process, in several, and in one process per configuration.

    python benchmarks/finetune_grid.py                               the embedded tiny BART
    python benchmarks/finetune_grid.py --model_size base --samples 1 --total_steps 5 --rounds 1

`grid`: one command for all configurations, which loads the model once. `workers`: the same with
--num_workers. `processes`: one command per configuration, one after the other; each loads the model and
tokenizes the data. All must write the same rows to results.csv, which is checked. Times are those of whole
commands, including their start.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pandas as pd
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measuring
from benchmarks.comparing import ratio
from task.skill_gym.generate import task_files, write_rows
from task.skill_gym.tasks import TASKS, metric_table

TASK = "entailment-shop-labels"  # three labels: 48 train, 48 dev and 144 test examples per sample
VARIANTS = ("grid", "workers", "processes")
SAMPLES = ("100", "13", "21", "42", "87")
SCORES = ["prefix", "lr", "bsz", "dev_performance", "test_performance"]


@dataclass(frozen=True)
class Settings:
    """One field per flag."""

    model_size: str
    samples: int
    learning_rate_list: list[float]
    bsz_list: list[int]
    total_steps: int
    eval_period: int
    num_workers: int
    rounds: int
    threads: int
    device: str
    seed: int
    variants: list[str]


def main(argv: list[str] | None = None) -> None:
    settings = parse_settings(argv)
    load = os.getloadavg()[0]
    measuring.prepare(settings)
    seconds, memory = ({name: [] for name in settings.variants} for _ in range(2))
    with tempfile.TemporaryDirectory() as folder:
        grids = Grids(Path(folder), settings)
        runs = list(product(range(settings.rounds), settings.variants))
        for n, name in tqdm(runs, desc="grids", unit="grid"):
            start = time.perf_counter()
            outputs, peak = grids.run(name, n)
            seconds[name].append(time.perf_counter() - start)
            memory[name].append(peak)
            grids.check_same(outputs)
    variants = {
        name: {
            "median_s": statistics.median(seconds[name]),
            "min_s": min(seconds[name]),
            "largest_process_gb": max(memory[name]),
        }
        for name in settings.variants
    }
    others = [name for name in variants if name != "grid" and "grid" in variants]
    ratios = {f"{name}_over_grid": ratio(variants, name, "grid") for name in others}
    measuring.print_report("finetune_grid", settings, load, variants=variants, ratios=ratios)


class Grids:
    """Runs grids in a folder with a task and a BART."""

    def __init__(self, folder: Path, settings: Settings):
        self.folder, self.settings = folder, settings
        self.samples = SAMPLES[: settings.samples]
        write_task(folder / "gym" / TASK, self.samples, settings.seed)
        self.bart = measuring.saved_bart(folder / "bart", settings.model_size, settings.seed)
        self.expected = None

    def run(self, name: str, number: int) -> tuple[list[Path], float]:
        """Runs a variant in new folders; returns them, and the peak memory of its largest process in GB."""
        settings, output = self.settings, self.folder / f"{name}{number}"
        if name == "processes":
            points = list(product(self.samples, settings.learning_rate_list, settings.bsz_list))
            outputs = [output / str(i) for i in range(len(points))]
            peaks = [
                self.command(place, sample, [lr], [bsz], 1)
                for place, (sample, lr, bsz) in zip(outputs, points, strict=True)
            ]
            return outputs, max(peaks)
        workers = settings.num_workers if name == "workers" else 1
        samples = "all" if len(self.samples) > 1 else self.samples[0]
        grid = (settings.learning_rate_list, settings.bsz_list)
        return [output], self.command(output, samples, *grid, workers)

    def command(self, output: Path, sample: str, lrs: list, sizes: list, workers: int) -> float:
        """Runs the fine-tuning command; returns the peak memory of its largest process in GB."""
        settings = self.settings
        command = [
            sys.executable, "-m", "routing_moe.cli.finetune", "--do_train", "--do_predict", "--quiet",
            "--task_dir", self.folder / "gym" / TASK, "--model", self.bart, "--output_dir", output,
            "--samples", sample, "--learning_rate_list", *lrs, "--bsz_list", *sizes,
            "--total_steps", settings.total_steps, "--eval_period", settings.eval_period,
            "--warmup_steps", 0, "--max_input_length", 128, "--max_output_length", 16, "--num_beams", 1,
            "--num_workers", workers,
        ]  # fmt: skip
        environment = os.environ | ({"OMP_NUM_THREADS": str(settings.threads)} if settings.threads else {})
        root = Path(__file__).resolve().parents[1]
        with tempfile.TemporaryFile() as printed:
            process = subprocess.Popen(
                list(map(str, command)), env=environment, cwd=root, stdout=printed, stderr=printed
            )
            _, status, usage = os.wait4(process.pid, 0)
            if status:
                printed.seek(0)
                raise RuntimeError(printed.read().decode()[-2000:])
        return usage.ru_maxrss * 1024 / 1e9

    def check_same(self, outputs: list[Path]) -> None:
        """Raises RuntimeError if the results of the configurations differ from those of earlier runs."""
        tables = [pd.read_csv(output / "results.csv", index_col=0)[SCORES] for output in outputs]
        rows = pd.concat(tables)
        rows = rows[~rows["prefix"].str.endswith("_best")].sort_values(SCORES[:3]).reset_index(drop=True)
        if self.expected is not None and not rows.equals(self.expected):
            raise RuntimeError(f"results differ from those of an earlier run:\n{rows}\n{self.expected}")
        self.expected = rows


def write_task(folder: Path, samples: tuple[str, ...], seed: int) -> None:
    """Writes the files of TASK for these samples into the folder, and metrics.json beside it."""
    (task,) = (task for task in TASKS if task.name == TASK)
    folder.mkdir(parents=True)
    (folder.parent / "metrics.json").write_text(json.dumps(metric_table()), encoding="utf-8")
    for name, rows in task_files(task, seed).items():
        if name.split("_")[-2] in samples:
            write_rows(folder / name, rows)


def parse_settings(argv: list[str] | None) -> Settings:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.finetune_grid",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    add = parser.add_argument
    add("--samples", type=int, choices=range(1, len(SAMPLES) + 1), default=2, help="number (default 2)")
    add("--learning_rate_list", nargs="+", type=float, default=[3e-4, 1e-3], help="default 3e-4 1e-3")
    add("--bsz_list", nargs="+", type=int, default=[4, 8], help="batch sizes (default 4 8)")
    add("--total_steps", type=int, default=100, help="steps per configuration (default 100)")
    add("--eval_period", type=int, default=25, help="steps between evaluations (default 25)")
    add("--num_workers", type=int, default=2, help="processes of the variant `workers` (default 2)")
    args = measuring.parse_turns(parser, argv, VARIANTS, rounds=3)
    return Settings(**vars(args))


if __name__ == "__main__":
    main()
