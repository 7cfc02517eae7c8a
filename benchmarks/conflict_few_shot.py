"""Unseen tasks of a conflict gym: scores without and with fine-tuning on the 16 rows of a sample.

    python benchmarks/conflict_few_shot.py models/compare_conflict/conflict1_16skills --seeds 11 12
    python benchmarks/conflict_few_shot.py PLACE --output_file docs/results/conflict_few_shot.csv

PLACE is a folder of compare_conflict.sh. Every variant's run starts the fine-tuning of each unseen task on
its first sample, which the vectors were computed from: clusters and composed along the route of the cluster
nearest to this vector, oracle along the true route, softmax along that of the nearest task by text. The rate
is selected on the dev rows of the sample. Columns: zero_shot, the mean test score of the start along that
route (for clusters and composed, the route has seen the labels of the 16 rows); few_shot, after fine-tuning.
Measures no time. Prints one JSON line.
"""

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measuring
from dataloader.task_splits import load_split
from routing_moe.cli.finetune import main as finetune
from routing_moe.io.run_folder import load_run_settings

VARIANTS = ("dense", "softmax", "clusters", "composed", "oracle")


@dataclass(frozen=True)
class Settings:
    place: str
    seeds: list[int]
    variants: list[str]
    tasks: int
    rates: list[float]
    steps: int
    output_file: str
    device: str = "cpu"


def start_flags(run: Path, variant: str) -> list[str]:
    """Returns the flags of the start and of the task's route."""
    if variant == "dense":
        return ["--checkpoint", str(run)]
    flags = ["--moe_init", "--init_dir", str(run)]
    if variant in ("clusters", "composed"):
        return [*flags, "--taskvecs", load_run_settings(run)["taskvecs"]]
    return [*flags, "--task_routes", load_run_settings(run)["task_routes"]] if variant == "oracle" else flags


def scores(run: Path, variant: str, task: str, settings: Settings) -> tuple[float, float]:
    """Returns (zero-shot, few-shot) test scores of a task; finished fine-tuning is kept."""
    gym = Path(load_run_settings(run)["train_dir"])
    found = []
    for name, training in (("as_it_is", []), (few_shot_folder(settings), training_flags(settings))):
        output = run / name / task
        flags = ["--task_dir", str(gym / task), "--samples", "first", "--output_dir", str(output)]
        flags += ["--max_input_length", "16", "--max_output_length", "8", "--num_beams", "1", "--quiet"]
        if finetune([*flags, "--do_predict", *training, *start_flags(run, variant)]):
            raise SystemExit(f"{output} failed")
        results = pd.read_csv(output / "results.csv")
        found.append(float(results.loc[results["dev_performance"].idxmax(), "test_performance"]))
    return found[0], found[1]


def few_shot_folder(settings: Settings) -> str:
    """Returns the name of the folder of results: another one for other steps or rates."""
    return f"few_shot_{settings.steps}_steps_rates_{'_'.join(f'{rate:g}' for rate in settings.rates)}"


def training_flags(settings: Settings) -> list[str]:
    rates = [str(rate) for rate in settings.rates]
    steps, period = str(settings.steps), str(max(1, settings.steps // 4))
    flags = ["--do_train", "--learning_rate_list", *rates, "--bsz_list", "16", "--max_grad_norm", "16"]
    return [*flags, "--total_steps", steps, "--warmup_steps", "10", "--eval_period", period]


def mean_table(table: pd.DataFrame) -> pd.DataFrame:
    """Returns a row per variant: n seeds, mean and sample std over seeds of the mean over tasks."""
    seeds = table.groupby(["variant", "seed"], sort=False)[["zero_shot", "few_shot"]].mean()
    grouped, columns = seeds.groupby("variant", sort=False), {}
    for name in seeds:
        columns |= {name: grouped[name].mean(), f"{name}_std": grouped[name].std()}
    return pd.DataFrame({"n": grouped.size()} | columns).reset_index()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("place", type=Path, help="folder of compare_conflict.sh with <variant>/seed<seed>")
    parser.add_argument("--seeds", nargs="+", type=int, default=[11], help="seeds of the runs (default: 11)")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    parser.add_argument("--tasks", type=int, default=16, help="number of unseen tasks (default: 16)")
    parser.add_argument("--rates", nargs="+", type=float, default=[0.001, 0.003])
    parser.add_argument("--steps", type=int, default=60, help="steps of 16 rows (default: 60)")
    parser.add_argument("--output_file", type=Path, help="CSV file to write the table to")
    args = parser.parse_args(argv)
    fields = vars(args) | {"place": str(args.place), "output_file": str(args.output_file or "")}
    settings, load, rows = Settings(**fields), os.getloadavg()[0], []
    for seed in args.seeds:
        for variant in args.variants:
            run = args.place / variant / f"seed{seed}"
            gym = Path(load_run_settings(run)["train_dir"])
            for task in tqdm(load_split(gym / "split.json").test[: args.tasks], desc=f"{variant} {seed}"):
                zero, few = scores(run, variant, task, settings)
                row = {"variant": variant, "seed": seed, "task": task}
                rows.append(row | {"zero_shot": zero, "few_shot": few})
    table = pd.DataFrame(rows)
    means = mean_table(table)
    measuring.write_tables(table, means, args.output_file)
    variants = means.set_index("variant").to_dict("index")
    measuring.print_report("conflict_few_shot", settings, load, variants=variants, ratios={})


if __name__ == "__main__":
    main()
