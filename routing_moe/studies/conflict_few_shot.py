"""Unseen tasks of a conflict gym: scores without and with fine-tuning on the 16 rows of a sample.

    routing-moe study conflict-few-shot models/compare_conflict/conflict1_16skills --seeds 201 202
    routing-moe study conflict-few-shot LEVEL --variants oracle-average-logits average-merged

LEVEL is a folder of the conflict study. Every variant's run starts the fine-tuning of each unseen task on
its first sample, which the vectors were computed from: clusters along the route of the cluster nearest to this vector,
refined and refined_composed along that of lowest loss on its rows, oracle along the true route, softmax along that of
the nearest task by text. After the run's name, a variant may have "-average" for equal weights instead, "-learned"
for a learned vector, and a value of --route_training: "softmax-merged" fine-tunes the experts merged along that route. The rate is
selected on the dev rows of the sample. Columns: zero_shot, the mean test score of the start along that route
(for clusters and refined ones, the route has seen the labels of the 16 rows); few_shot, after fine-tuning;
seconds and mflops of a configuration's training (seconds with its evaluations and the test score).
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from dataloader.errors import InputError, did_you_mean
from dataloader.task_splits import load_split
from routing_moe.config.choices import ROUTE_TRAININGS
from routing_moe.config.flags import AT_LEAST_1, POSITIVE, REQUIRED, SEED
from routing_moe.io.run_folder import load_run_settings, settings_of_run
from routing_moe.studies.analysis import ANALYSIS, Analysis, run_analysis

VARIANTS = ("dense", "softmax", "clusters", "refined", "refined_composed", "oracle")
STARTS = {
    "average": ["--moe_avg_route"],
    "learned": ["--task_vector", "learned", "--task_model_lr", "0.1"],
    **{training: ["--route_training", training] for training in ROUTE_TRAININGS},
}


@dataclass(frozen=True, kw_only=True)
class FewShot(Analysis):
    # fmt: off
    program = "routing-moe study conflict-few-shot"

    level: Path = ANALYSIS(REQUIRED, "folder of the conflict study with <variant>/seed<seed>", positional=True)
    seeds: tuple[int, ...] = ANALYSIS((201,), "seeds of the runs", range=SEED)
    variants: tuple[str, ...] = ANALYSIS(VARIANTS, "variants, see above")
    tasks: int = ANALYSIS(16, "number of unseen tasks", range=AT_LEAST_1)
    rates: tuple[float, ...] = ANALYSIS((0.001, 0.003), "learning rates", range=POSITIVE)
    logit_rates: tuple[float, ...] = ANALYSIS((0.1, 0.3), "learning rates of logits", range=POSITIVE)
    steps: int = ANALYSIS(60, "steps of 16 rows", range=AT_LEAST_1)
    # fmt: on

    def problems(self) -> list[str]:
        return super().problems() + unknown_variants(self.variants)


def run(settings: FewShot) -> None:
    rows = []
    for seed in settings.seeds:
        for variant in settings.variants:
            start = settings.level / variant.split("-")[0] / f"seed{seed}"
            gym = Path(settings_of_run(start)["train_dir"])
            tasks = load_split(gym / "split.json").test[: settings.tasks]
            for task in tqdm(tasks, desc=f"{variant} {seed}"):
                row = {"variant": variant, "seed": seed, "task": task}
                rows.append(row | scores(start, gym, variant, task, settings))
    table = pd.DataFrame(rows)
    settings.write(table, mean_table(table))


def unknown_variants(variants: tuple[str, ...]) -> list[str]:
    """Returns problems of variants that are not the name of a run, followed by starts."""
    problems, runs = [], (*VARIANTS, "average")
    for variant in variants:
        name, *starts = variant.split("-")
        if name not in runs or not set(starts) <= set(STARTS) or (starts and name == "dense"):
            expected = f"{', '.join(runs)}, followed by -{', -'.join(STARTS)} except for dense"
            problems.append(
                f"--variants holds {variant!r}, not one of {expected}{did_you_mean(variant, runs)}"
            )
    return problems


def start_flags(run: Path, variant: str) -> list[str]:
    """Returns the flags of the start and of the task's route."""
    if variant == "dense":
        return ["--checkpoint", str(run)]
    variant, *start = variant.split("-")
    flags = ["--moe_init", "--init_dir", str(run), *(flag for part in start for flag in STARTS[part])]
    if "average" in start:
        return flags
    if variant.startswith("refined"):
        return [*flags, "--task_routes", "lowest_loss"]
    if variant == "clusters":
        return [*flags, "--taskvecs", load_run_settings(run)["taskvecs"]]
    return [*flags, "--task_routes", load_run_settings(run)["task_routes"]] if variant == "oracle" else flags


def scores(run: Path, gym: Path, variant: str, task: str, settings: FewShot) -> dict[str, float]:
    """Returns test scores and costs of a task; finished fine-tuning is kept."""
    from routing_moe.cli.finetune import main as finetune

    best_scores, start = [], "".join(f"-{part}" for part in variant.split("-")[1:])
    rates = settings.logit_rates if "logits" in start.split("-") else settings.rates
    trained = few_shot_folder(rates, settings.steps) + start
    for name, training in (("as_it_is" + start, []), (trained, training_flags(rates, settings.steps))):
        output = run / name / task
        flags = ["--task_dir", str(gym / task), "--samples", "first", "--output_dir", str(output)]
        flags += ["--max_input_length", "16", "--max_output_length", "8", "--num_beams", "1", "--quiet"]
        if finetune([*flags, "--do_predict", *training, *start_flags(run, variant)]):
            raise InputError(f"fine-tuning in {output} failed")
        results = pd.read_csv(output / "results.csv")
        best_scores.append(float(results.loc[results["dev_performance"].idxmax(), "test_performance"]))
    seconds = [json.loads(path.read_text())["seconds"] for path in output.glob("configurations/*.json")]
    costs = {"seconds": sum(seconds) / len(seconds), "mflops": results["total_flops"].mean() / 1e6}
    return {"zero_shot": best_scores[0], "few_shot": best_scores[1]} | costs


def few_shot_folder(rates: tuple[float, ...], steps: int) -> str:
    """Returns the name of the folder of results: another one for other steps or rates."""
    return f"few_shot_{steps}_steps_rates_{'_'.join(f'{rate:g}' for rate in rates)}"


def training_flags(rates: tuple[float, ...], steps: int) -> list[str]:
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


def main(argv: list[str] | None = None) -> int:
    return run_analysis(run, FewShot, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
