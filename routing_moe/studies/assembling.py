"""Fine-tune a BART on each of eight tasks, make one mixture of them, and compare its scores with those of each alone.

    bash example_scripts/assemble_experts.sh
    bash example_scripts/assemble_experts.sh --train_dir data/gym --output_dir models/library
    routing-moe recipe assemble --tasks "boolq piqa"

Without arguments: eight of the train tasks of the embedded gym, and the embedded tiny BART. Embeddings are not trained, so
that the mixture's answers are those of each model. Unseen tasks are scored along the route of the expert whose task has
the most similar texts. Further flags are those of routing-moe finetune. The same command continues after an interruption.

    experts/   the grids of fine-tuning, with the BARTs      assembled/   the mixture
    scores/    its scores                                    compared.csv the scores of each task, alone and in the mixture
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pandas as pd

from dataloader.atomic_files import write_text
from dataloader.gym import Gym, evenly_spread
from dataloader.list_tasks import tasks_named
from dataloader.task_splits import load_split
from routing_moe.checkpoints.assemble import ASSEMBLED_FILE
from routing_moe.config.finetune import FinetuneSettings
from routing_moe.config.flags import AT_LEAST_1, flags_of, group
from routing_moe.config.shared import TextFlags
from routing_moe.results.markdown import markdown_table
from routing_moe.studies.finetuning import STARTS, Finetuner, Finetuning
from routing_moe.studies.recipes import SCORES, TRAIN, DataFlags, command
from routing_moe.studies.runs import call_all, call_here
from routing_moe.studies.study import RUNNING, parse_further, run_study
from routing_moe.studies.training import in_turn

WHAT = group("tasks")
MOST = 8  # tasks without --tasks


@dataclass(frozen=True, kw_only=True)
class Assembling(DataFlags):
    # fmt: off
    program = "routing-moe recipe assemble"
    takes_further, further_flags_of = True, FinetuneSettings
    variables: ClassVar[Mapping[str, str]] = DataFlags.variables

    tasks: str | None = WHAT(None, "names of tasks in one argument, or sections of a split, such as \"boolq piqa\" or train (default: 8 of the train tasks, evenly spaced)")
    output_dir: Path = RUNNING(Path("models/library"), "folder of the results")
    num_workers: int = RUNNING(1, "configurations at the same time", range=AT_LEAST_1)
    # fmt: on


def finetuner_of(flags: Assembling, tasks: list[str]) -> Finetuner:
    """Returns what fine-tunes the BART on each task, without its embeddings, and keeps the best models."""
    shared = {name: getattr(flags, name) for name in (*flags_of(DataFlags), "num_workers")}
    kept = ("--samples", "first", "--freeze_embeds", "--save_best")
    further, folder = (*flags.further, *kept), flags.output_dir / "experts"
    return Finetuner(
        STARTS["bart"], Finetuning(**shared, tasks=" ".join(tasks), results_dir=folder, further=further)
    )


def assemble(flags: Assembling) -> int:
    folder = flags.output_dir
    recipe = finetuner_of(flags, []).recipe
    if code := in_turn(recipe, []):
        return code
    words = flags.tasks.split() if flags.tasks else ["train"]
    tasks = tasks_named(words, recipe.split_file)
    tasks = tasks if flags.tasks else evenly_spread(tasks, MOST)
    finetuner = finetuner_of(flags, tasks)
    print(finetuner.described(), flush=True)
    if code := finetuner.run():
        return code
    gym, assembled = Gym(recipe.gym), folder / "assembled"
    samples = {task: gym.samples(task)[0] for task in tasks}
    places = {task: expert_of(finetuner, task, sample) for task, sample in samples.items()}
    making = command(
        "routing_moe.cli.assemble",
        experts=tuple(f"{task}={place}" for task, place in places.items()),
        **dict(base=recipe.model, train_dir=recipe.gym, output_dir=assembled),
    )
    if not (assembled / ASSEMBLED_FILE).is_file() and (code := call_here(making)):
        return code
    unseen = [task for task in load_split(recipe.split_file).test if task not in tasks]
    split = folder / "split.json"
    write_text(split, json.dumps({"train": tasks, "dev": [], "test": unseen}))
    given = parse_further(FinetuneSettings, flags.further)
    texts = dict(num_beams=recipe.num_beams, **recipe.texts)
    texts |= {name: given[name] for name in flags_of(TextFlags) if name in given}
    scoring = command(
        TRAIN,
        **dict(do_predict=True, checkpoint=assembled, train_dir=recipe.gym, custom_tasks_splits=split),
        **dict(output_dir=folder / "scores", mixed_precision=recipe.mixed_precision),
        **texts,
    )
    nearest = [*scoring, "--predict_split", "test", "--task_vector", "nearest"]
    if code := call_all(scoring, *([nearest] if unseen else ())):
        return code
    print(compared(finetuner, samples, folder))
    return 0


def expert_of(finetuner: Finetuner, task: str, sample: str) -> Path:
    return finetuner.folder / f"singletask-{task}" / "models" / f"{sample}_best"


def compared(finetuner: Finetuner, samples: Mapping[str, str], folder: Path) -> str:
    """Writes compared.csv; returns the table with a line on how many scores are equal."""
    (path,) = folder.glob(f"scores/*/{Path(SCORES).name}")
    mixture = pd.read_csv(path).set_index("task_prefix")["performance"]
    alone = {}
    for task, sample in samples.items():
        results = pd.read_csv(finetuner.folder / f"singletask-{task}" / "results.csv").set_index("prefix")
        alone[task] = results.loc[f"{sample}_best", "test_performance"]
    table = pd.DataFrame({"alone": alone, "in the mixture": mixture.loc[list(samples)]}).rename_axis("task")
    write_text(folder / "compared.csv", table.to_csv())
    equal = (table["alone"] - table["in the mixture"]).abs() < 1e-9
    return f"\n{markdown_table(table)}\nequal: {equal.sum()} of {len(table)} test scores"


def main(argv: list[str] | None = None) -> int:
    return run_study(assemble, Assembling, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
