"""Train a model on each of eight tasks, make one mixture of them, and compare its scores with those of each alone.

    bash example_scripts/assemble_experts.sh
    bash example_scripts/assemble_experts.sh lora
    bash example_scripts/assemble_experts.sh --train_dir data/gym --output_dir models/library
    routing-moe recipe assemble [KIND] --tasks "boolq piqa"

KIND    layer: fine-tuned BARTs (default); lora: low-rank experts on the same BART, exported as adapters of peft

Without arguments: eight of the train tasks of the embedded gym, and the embedded tiny BART. Embeddings are not trained, so
that the mixture's answers are those of each model. Unseen tasks are scored along the route of the expert whose task has
the most similar texts. Further flags are those of routing-moe finetune, for lora of routing-moe train. The same command
continues after an interruption.

    experts/      the grids of fine-tuning with the BARTs, or the runs and adapters
    assembled/    the mixture
    scores/       its scores
    compared.csv  the scores of each task, alone and in the mixture
    unseen.csv    the scores of unseen tasks, with their routes
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from dataloader.atomic_files import write_text
from dataloader.errors import InputError
from dataloader.gym import Gym, evenly_spread
from dataloader.jsonfile import load_json_object
from dataloader.list_tasks import tasks_named
from dataloader.task_splits import load_split
from routing_moe.checkpoints.assemble import ASSEMBLED_FILE
from routing_moe.config.finetune import FinetuneSettings
from routing_moe.config.flags import AT_LEAST_1, flags_of, group
from routing_moe.config.shared import TextFlags
from routing_moe.config.train import TrainSettings
from routing_moe.results.markdown import markdown_table
from routing_moe.studies.finetuning import STARTS, Finetuner, Finetuning
from routing_moe.studies.recipes import SCORES, TRAIN, UNSEEN_SCORES, DataFlags, TrainingRecipe, command
from routing_moe.studies.runs import call_all, call_here
from routing_moe.studies.study import RUNNING, parse_further, part_of, run_study
from routing_moe.studies.training import in_turn

WHAT = group("tasks")
MOST = 8  # tasks without --tasks


@dataclass(frozen=True, kw_only=True)
class Assembling(DataFlags):
    # fmt: off
    program = "routing-moe recipe assemble"
    takes_further = True

    tasks: str | None = WHAT(None, "names of tasks in one argument, or sections of a split, such as \"boolq piqa\" or train (default: 8 of the train tasks, evenly spaced)")
    # fmt: on


@dataclass(frozen=True, kw_only=True)
class AssemblingBarts(Assembling):
    # fmt: off
    further_flags_of = FinetuneSettings

    output_dir: Path = RUNNING(Path("models/library"), "folder of the results")
    num_workers: int = RUNNING(1, "configurations at the same time", range=AT_LEAST_1)
    # fmt: on


@dataclass(frozen=True, kw_only=True)
class AssemblingAdapters(Assembling):
    # fmt: off
    further_flags_of = TrainSettings

    output_dir: Path = RUNNING(Path("models/library_of_adapters"), "folder of the results")
    # fmt: on


class FineTuned:
    """BARTs, each fine-tuned on the first sample of a task without the embeddings."""

    def __init__(self, flags: AssemblingBarts, recipe: TrainingRecipe, tasks: Sequence[str]):
        shared = {name: getattr(flags, name) for name in (*flags_of(DataFlags), "num_workers")}
        kept = ("--samples", "first", "--freeze_embeds", "--save_best")
        further, self.folder = (*flags.further, *kept), flags.output_dir / "experts"
        grids = Finetuning(**shared, tasks=" ".join(tasks), results_dir=self.folder, further=further)
        self.finetuner = Finetuner(STARTS["bart"], grids)
        self.samples = {task: Gym(recipe.gym).samples(task)[0] for task in tasks}

    def train(self) -> int:
        print(self.finetuner.described(), flush=True)
        return self.finetuner.run()

    def place(self, task: str) -> Path:
        return self.folder / f"singletask-{task}/models/{self.samples[task]}_best"

    def score(self, task: str) -> float:
        results = pd.read_csv(self.folder / f"singletask-{task}/results.csv").set_index("prefix")
        return results.loc[f"{self.samples[task]}_best", "test_performance"]


class Adapters:
    """Low-rank experts on the same frozen BART, each trained on one task and exported as an adapter of peft."""

    def __init__(self, flags: AssemblingAdapters, recipe: TrainingRecipe, tasks: Sequence[str]):
        self.flags, self.recipe, self.tasks = flags, recipe, tasks
        self.folder = flags.output_dir / "experts"

    def train(self) -> int:
        codes = (call_all(*self.commands(task)) for task in self.tasks)
        return next((code for code in codes if code), 0)

    def commands(self, task: str) -> list[list[str]]:
        """Returns the commands that a task still needs."""
        folder = self.folder / task
        run, adapters, split = (folder / name for name in ("run", "adapters", "split.json"))
        folder.mkdir(parents=True, exist_ok=True)
        write_text(split, json.dumps({"train": [task], "dev": [], "test": []}))
        kind = ("--expert_kind", "lora", "--num_experts", "1", "--resume")
        training = self.recipe.with_(split=split).train(run, *self.flags.further, *kind)
        exporting = command("routing_moe.cli.export", checkpoint=run, adapters=True, output_dir=adapters)
        needed = {run / SCORES: training, adapters: exporting}
        return [line for result, line in needed.items() if not result.exists()]

    def place(self, task: str) -> Path:
        return self.folder / task / "adapters/expert0"

    def score(self, task: str) -> float:
        return pd.read_csv(self.folder / task / "run" / SCORES)["performance"].item()


KINDS = {"layer": (FineTuned, AssemblingBarts), "lora": (Adapters, AssemblingAdapters)}


def assemble(kind: type[FineTuned | Adapters], flags: AssemblingBarts | AssemblingAdapters) -> int:
    folder, recipe = flags.output_dir, TrainingRecipe.chosen(flags)
    if code := in_turn(recipe, []):
        return code
    words = flags.tasks.split() if flags.tasks else ["train"]
    tasks = tasks_named(words, recipe.split_file, recipe.gym)
    tasks = tasks if flags.tasks else evenly_spread(tasks, MOST)
    experts, assembled = kind(flags, recipe, tasks), folder / "assembled"
    if is_made := (assembled / ASSEMBLED_FILE).is_file():
        check_experts(assembled, tasks)
    if code := experts.train():
        return code
    making = command(
        "routing_moe.cli.assemble",
        experts=tuple(f"{task}={experts.place(task)}" for task in tasks),
        **dict(base=recipe.model, train_dir=recipe.gym, output_dir=assembled),
    )
    if not is_made and (code := call_here(making)):
        return code
    unseen = [task for task in load_split(recipe.split_file).test if task not in tasks]
    split = folder / "split.json"
    write_text(split, json.dumps({"train": tasks, "dev": [], "test": unseen}))
    given = parse_further(flags.further_flags_of, flags.further)
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
    print(compared(experts, tasks, folder))
    if unseen:
        print(f"\n{markdown_table(of_unseen(folder))}")
    return 0


def check_experts(assembled: Path, tasks: Sequence[str]) -> None:
    """Raises InputError if a mixture of an earlier call has experts of other tasks."""
    made_of = load_json_object(assembled / ASSEMBLED_FILE, "what a mixture was made of")["made_of"]
    had = [name.removeprefix("experts/") for name in made_of if name.startswith("experts/")]
    if set(had) != set(tasks):
        raise InputError(
            f"--tasks are {' '.join(tasks)}, but {assembled} has experts of {' '.join(had)}; give these tasks or "
            "another --output_dir"
        )


def compared(experts: FineTuned | Adapters, tasks: Sequence[str], folder: Path) -> str:
    """Writes compared.csv; returns the table with a line on how many scores are equal."""
    (path,) = folder.glob(f"scores/*/{Path(SCORES).name}")
    mixture = pd.read_csv(path).set_index("task_prefix")["performance"]
    alone = {task: experts.score(task) for task in tasks}
    table = pd.DataFrame({"alone": alone, "in the mixture": mixture.loc[tasks]}).rename_axis("task")
    write_text(folder / "compared.csv", table.to_csv())
    equal = (table["alone"] - table["in the mixture"]).abs() < 1e-9
    return f"\n{markdown_table(table)}\nequal: {equal.sum()} of {len(table)} test scores"


def of_unseen(folder: Path) -> pd.DataFrame:
    """Writes unseen.csv; returns the table of scores of unseen tasks, each along the route of the nearest expert."""
    (path,) = folder.glob(f"scores/*/{Path(UNSEEN_SCORES).name}")
    table = pd.read_csv(path).set_index("task_prefix")[["performance", "route"]].rename_axis("task")
    write_text(folder / "unseen.csv", table.to_csv())
    return table


def main(argv: list[str] | None = None) -> int:
    (kind, flags), line = part_of(argv, "KIND", KINDS, default="layer")
    return run_study(partial(assemble, kind), flags, line, __doc__)


if __name__ == "__main__":
    sys.exit(main())
