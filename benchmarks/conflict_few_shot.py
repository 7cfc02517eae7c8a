"""Unseen tasks of a conflict gym: scores without and with fine-tuning on the 16 rows of a sample.

    python benchmarks/conflict_few_shot.py models/compare_conflict/conflict1_16skills --seeds 11 12
    python benchmarks/conflict_few_shot.py PLACE --variants oracle-average-logits average-merged

PLACE is a folder of compare_conflict.sh. Every variant's run starts the fine-tuning of each unseen task on
its first sample, which the vectors were computed from: clusters and composed along the route of the cluster
nearest to this vector, oracle along the true route, softmax along that of the nearest task by text. After the
run's name, a variant may have "-average" for equal weights instead, "-learned" for a learned vector, and a
value of --route_training: "softmax-merged" fine-tunes the experts merged along that route. The rate is
selected on the dev rows of the sample. Columns: zero_shot, the mean test score of the start along that route
(for clusters and composed, the route has seen the labels of the 16 rows); few_shot, after fine-tuning;
seconds and mflops of a configuration's training (seconds with its evaluations and the test score). Prints
one JSON line.
"""

import argparse
import json
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
from routing_moe.config.choices import ROUTE_TRAININGS
from routing_moe.io.run_folder import load_run_settings

VARIANTS = ("dense", "softmax", "clusters", "composed", "oracle")
STARTS = {
    "average": ["--moe_avg_route"],
    "learned": ["--task_vector", "learned", "--task_model_lr", "0.1"],
    **{training: ["--route_training", training] for training in ROUTE_TRAININGS},
}


@dataclass(frozen=True)
class Settings:
    place: str
    seeds: list[int]
    variants: list[str]
    tasks: int
    rates: list[float]
    logit_rates: list[float]
    steps: int
    output_file: str
    device: str = "cpu"


def start_flags(run: Path, variant: str) -> list[str]:
    """Returns the flags of the start and of the task's route."""
    if variant == "dense":
        return ["--checkpoint", str(run)]
    variant, *start = variant.split("-")
    flags = ["--moe_init", "--init_dir", str(run), *(flag for part in start for flag in STARTS[part])]
    if "average" in start:
        return flags
    if variant in ("clusters", "composed"):
        return [*flags, "--taskvecs", load_run_settings(run)["taskvecs"]]
    return [*flags, "--task_routes", load_run_settings(run)["task_routes"]] if variant == "oracle" else flags


def scores(run: Path, variant: str, task: str, settings: Settings) -> dict[str, float]:
    """Returns test scores and costs of a task; finished fine-tuning is kept."""
    gym = Path(load_run_settings(run)["train_dir"])
    found, start = [], "".join(f"-{part}" for part in variant.split("-")[1:])
    rates = settings.logit_rates if start.endswith("-logits") else settings.rates
    trained = few_shot_folder(rates, settings.steps) + start
    for name, training in (("as_it_is" + start, []), (trained, training_flags(rates, settings.steps))):
        output = run / name / task
        flags = ["--task_dir", str(gym / task), "--samples", "first", "--output_dir", str(output)]
        flags += ["--max_input_length", "16", "--max_output_length", "8", "--num_beams", "1", "--quiet"]
        if finetune([*flags, "--do_predict", *training, *start_flags(run, variant)]):
            raise SystemExit(f"{output} failed")
        results = pd.read_csv(output / "results.csv")
        found.append(float(results.loc[results["dev_performance"].idxmax(), "test_performance"]))
    seconds = [json.loads(path.read_text())["seconds"] for path in output.glob("configurations/*.json")]
    costs = {"seconds": sum(seconds) / len(seconds), "mflops": results["total_flops"].mean() / 1e6}
    return {"zero_shot": found[0], "few_shot": found[1]} | costs


def few_shot_folder(rates: list[float], steps: int) -> str:
    """Returns the name of the folder of results: another one for other steps or rates."""
    return f"few_shot_{steps}_steps_rates_{'_'.join(f'{rate:g}' for rate in rates)}"


def training_flags(rates: list[float], steps: int) -> list[str]:
    period = str(max(1, steps // 4))
    flags = ["--do_train", "--learning_rate_list", *map(str, rates), "--bsz_list", "16"]
    flags += ["--max_grad_norm", "16"]
    return [*flags, "--total_steps", str(steps), "--warmup_steps", "10", "--eval_period", period]


def mean_table(table: pd.DataFrame) -> pd.DataFrame:
    """Returns a row per variant: n seeds, mean and sample std over seeds of the mean over tasks; costs."""
    seeds = table.groupby(["variant", "seed"], sort=False)[["zero_shot", "few_shot"]].mean()
    grouped, columns = seeds.groupby("variant", sort=False), {}
    for name in seeds:
        columns |= {name: grouped[name].mean(), f"{name}_std": grouped[name].std()}
    columns |= {name: table.groupby("variant", sort=False)[name].mean() for name in ("seconds", "mflops")}
    return pd.DataFrame({"n": grouped.size()} | columns).reset_index()


def known_variant(name: str) -> str:
    run, *start = name.split("-")
    if run not in (*VARIANTS, "average") or not set(start) <= set(STARTS) or (start and run == "dense"):
        raise argparse.ArgumentTypeError(
            f"{name!r} is not one of {', '.join((*VARIANTS, 'average'))}, followed by -{', -'.join(STARTS)}"
        )
    return name


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("place", type=Path, help="folder of compare_conflict.sh with <variant>/seed<seed>")
    parser.add_argument("--seeds", nargs="+", type=int, default=[11], help="seeds of the runs (default: 11)")
    parser.add_argument("--variants", nargs="+", type=known_variant, default=VARIANTS)
    parser.add_argument("--tasks", type=int, default=16, help="number of unseen tasks (default: 16)")
    parser.add_argument("--rates", nargs="+", type=float, default=[0.001, 0.003])
    parser.add_argument("--logit_rates", nargs="+", type=float, default=[0.1, 0.3], help="of logits")
    parser.add_argument("--steps", type=int, default=60, help="steps of 16 rows (default: 60)")
    parser.add_argument("--output_file", type=Path, help="CSV file to write the table to")
    args = parser.parse_args(argv)
    fields = vars(args) | {"place": str(args.place), "output_file": str(args.output_file or "")}
    settings, load, rows = Settings(**fields), os.getloadavg()[0], []
    for seed in args.seeds:
        for variant in args.variants:
            run = args.place / variant.split("-")[0] / f"seed{seed}"
            gym = Path(load_run_settings(run)["train_dir"])
            for task in tqdm(load_split(gym / "split.json").test[: args.tasks], desc=f"{variant} {seed}"):
                row = {"variant": variant, "seed": seed, "task": task}
                rows.append(row | scores(run, variant, task, settings))
    table = pd.DataFrame(rows)
    means = mean_table(table)
    measuring.write_tables(table, means, args.output_file)
    variants = means.set_index("variant").to_dict("index")
    measuring.print_report("conflict_few_shot", settings, load, variants=variants, ratios={})


if __name__ == "__main__":
    main()
