"""Time and memory of a fine-tuning grid: in one process, in several, and in one process per configuration.

    python benchmarks/finetune_grid.py                               the embedded tiny BART
    python benchmarks/finetune_grid.py --model_size base --samples 1 --total_steps 5 --rounds 1

`grid`: one command for all configurations, which loads the model once. `workers`: the same with
--num_workers. `processes`: one command per configuration, one after the other; each loads the model and
tokenizes the data. All must write the same rows to results.csv, which is checked. Times are those of whole
commands, including their start.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count, product
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measuring
from benchmarks.measuring import MEASURED, SAMPLES, ratio
from routing_moe.config.flags import AT_LEAST_1, POSITIVE, Range
from task.skill_gym.tasks import TASKS

TASK = "entailment-shop-labels"  # three labels: 48 train, 48 dev and 144 test examples per sample
VARIANTS = ("grid", "workers", "processes")
SCORES = ["prefix", "lr", "bsz", "dev_performance", "test_performance"]


@dataclass(frozen=True, kw_only=True)
class Settings(measuring.SavedModelSettings):
    program = "python -m benchmarks.finetune_grid"
    variants: tuple[str, ...] = MEASURED(VARIANTS, "variants to measure", choices=VARIANTS, metavar="VARIANT")
    samples: int = MEASURED(
        2, "number of samples", range=Range(lambda n: 1 <= n <= len(SAMPLES), f"from 1 to {len(SAMPLES)}")
    )
    learning_rate_list: tuple[float, ...] = MEASURED((3e-4, 1e-3), "learning rates", range=POSITIVE)
    bsz_list: tuple[int, ...] = MEASURED((4, 8), "batch sizes", range=AT_LEAST_1)
    total_steps: int = MEASURED(100, "steps per configuration", range=AT_LEAST_1)
    eval_period: int = MEASURED(25, "steps between evaluations", range=AT_LEAST_1)
    num_workers: int = MEASURED(2, "processes of the variant `workers`", range=AT_LEAST_1)


def main(argv: list[str] | None = None) -> int:
    return measuring.run_benchmark(run, Settings, argv, __doc__)


def run(settings: Settings) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        grids = Grids(Path(folder), settings)
        calls = {name: partial(grids.timed, name) for name in settings.variants}
        variants = measuring.measure(calls, settings.rounds, warm_up=False)
    ratios = {f"{name}_over_grid": ratio(variants, name, "grid") for name in VARIANTS[1:]}
    return {"variants": variants, "ratios": ratios}


class Grids:
    """Runs grids in a folder with a task and a BART."""

    def __init__(self, folder: Path, settings: Settings):
        self.folder, self.settings = folder, settings
        self.samples = SAMPLES[: settings.samples]
        tasks = [task for task in TASKS if task.name == TASK]
        measuring.write_gym(folder / "gym", tasks, settings.seed, self.samples)
        self.bart = measuring.saved_bart(folder / "bart", settings.model_size, settings.seed)
        self.numbers, self.expected = count(), None

    def timed(self, name: str) -> dict[str, float]:
        """Runs a variant in new folders; returns its seconds and the peak memory of its largest process."""
        settings, output = self.settings, self.folder / f"{name}{next(self.numbers)}"
        samples = "all" if len(self.samples) > 1 else self.samples[0]
        grid = [(samples, settings.learning_rate_list, settings.bsz_list)]
        if name == "processes":
            points = product(self.samples, settings.learning_rate_list, settings.bsz_list)
            grid = [(sample, [lr], [bsz]) for sample, lr, bsz in points]
        outputs = [output / str(i) for i in range(len(grid))]
        workers = settings.num_workers if name == "workers" else 1
        start = time.perf_counter()
        peaks = [self.command(folder, *part, workers) for folder, part in zip(outputs, grid, strict=True)]
        seconds = time.perf_counter() - start
        self.check_same(outputs)
        return {"s": seconds, "largest_process_gb": max(peaks)}

    def command(self, output: Path, samples: str, lrs: Sequence, sizes: Sequence, workers: int) -> float:
        """Runs the fine-tuning command; returns the peak memory of its largest process in GB."""
        settings = self.settings
        command = [
            sys.executable, "-m", "routing_moe.cli.finetune", "--do_train", "--do_predict", "--quiet",
            "--task_dir", self.folder / "gym" / TASK, "--model", self.bart, "--output_dir", output,
            "--samples", samples, "--learning_rate_list", *lrs, "--bsz_list", *sizes,
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


if __name__ == "__main__":
    sys.exit(main())
