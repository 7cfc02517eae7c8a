"""The flags of `routing_moe.cli.ablate`. What decides a score is as in the run, unless given."""

import argparse
from pathlib import Path

from dataloader.errors import InputError
from dataloader.gym import PARTS
from routing_moe.analysis.ablation.plan import AblationSettings
from routing_moe.cli.arguments import parse_settings
from routing_moe.cli.console import parse_or_guess
from routing_moe.evaluation.option_ranking import SCORINGS
from routing_moe.evaluation.unseen_tasks import FOUND_BY_RULE
from routing_moe.io.run_folder import load_run_settings

# Flags that mean the same in `routing_moe.cli.train --do_predict`, and are checked as there.
OF_PREDICTION = (
    "checkpoint_name", "train_dir", "predict_dir", "custom_tasks_splits", "task_ontology", "predict_split",
    "predict_samples", "scoring", "num_beams", "predict_batch_size", "task_vector", "text_vectors",
    "mixed_precision",
)  # fmt: skip


def parse_ablation(argv: list[str] | None, description: str) -> AblationSettings:
    """Raises InputError for a run that is not there, or whose run.json cannot be read."""
    values = vars(parse_or_guess(build_parser(description), argv))
    run = values.pop("run")
    if load_run_settings(run) is None:
        raise InputError(f"{run}: is no run folder (expected {run / 'run.json'})")
    given = {name: values.pop(name) for name in OF_PREDICTION}
    words = [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]
    prediction = parse_settings(["--do_predict", "--output_dir", str(run), *words], "")
    values["output_dir"] = values["output_dir"] or run / "analysis" / "ablation"
    for name in ("experts", "features"):
        values[name] = tuple(values[name])
    return AblationSettings(prediction=prediction, **values)


# fmt: off
def build_parser(description: str = "") -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m routing_moe.cli.ablate",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument_group("what is switched off").add_argument
    add("run", type=Path, metavar="RUN", help="run folder")
    add("--experts", nargs="+", default=["all"], metavar="SET", help="all: each (layer, expert) alone; none; or sets such as enc0.1 or enc0.1+dec2.0 (expert 1 of encoder layer 0, and with it expert 0 of decoder layer 2) (default: all)")
    add("--features", nargs="+", default=[], metavar="FEATURE", help="also the top experts of these features, such as skill:negation, all at once; all: of every feature that at least three tasks have and lack (default: none)")
    add("--top", type=int, default=3, help="how many experts of a feature: those whose weight goes most with it (default: 3)")
    add("--random_draws", type=int, default=20, help="random sets of as many other experts, used as much by the feature's tasks, that its own are compared with (default: 20)")
    add("--feature_file", type=Path, default=None, help="CSV file of features: task, kind:value, ... (default: the gym's skills.csv, else that of the 160 CrossFit tasks)")
    add("--routes", choices=("soft", "chosen"), default="soft", help="which weights are correlated with features: the softmax, or one-hot the heaviest expert of each layer (default: soft)")

    add = parser.add_argument_group("how tasks are scored").add_argument
    add("--part", choices=("dev", "test"), default="dev", help="which files (default: dev, so that nothing is chosen by test files)")
    add("--max_examples", type=int, default=None, help="so many examples of each file, evenly spread over it (default: all)")
    add("--predict_split", choices=PARTS, default=None, help="which tasks of the split (default: train)")
    add("--predict_samples", default=None, help="which samples of a task: first, all, or a seed such as 100 (default: first)")
    add("--checkpoint_name", default=None, help="which checkpoint of the run (default: best)")
    add("--train_dir", default=None, help="gym folder (default: that of the run)")
    add("--predict_dir", default=None, help="gym folder of dev and test files (default: that of the run)")
    add("--custom_tasks_splits", default=None, help="split file (default: that of the run)")
    add("--task_ontology", default=None, help="ontology file (default: that of the run)")
    add("--scoring", choices=SCORINGS, default=None, help="how answers are made (default: as in the run)")
    add("--num_beams", type=int, default=None, help="beams of generation (default: as in the run)")
    add("--predict_batch_size", type=int, default=None, help="examples answered at once (default: as in the run)")
    add("--task_vector", choices=FOUND_BY_RULE, default=None, help="whose vector unseen tasks have (default: auto, as in predictions)")
    add("--text_vectors", default=None, help="vectors by which the nearest task is found (default: computed)")
    add("--mixed_precision", choices=("no", "bf16", "fp16"), default=None, help="precision of matrix products (default: no)")

    add = parser.add_argument_group("running").add_argument
    add("--output_dir", type=Path, default=None, help="where scores, tables and pictures go (default: RUN/analysis/ablation)")
    add("--dry_run", action="store_true", help="score with all experts, say how long the rest would take, and stop")
    add("--seed", type=int, default=0, help="of the random sets of experts (default: 0)")
    return parser
# fmt: on
