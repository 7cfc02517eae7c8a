"""Task vectors for --taskvecs of training: computed, reduced, or looked at.

    bash example_scripts/task_vectors.sh METHOD [FLAGS]
    bash example_scripts/reduce_task_vectors.sh [FLAGS]
    bash example_scripts/inspect_task_vectors.sh [FLAGS]
    routing-moe recipe vectors METHOD|reduce|inspect [FLAGS]

METHOD is random, text, finetuned_text, fisher, gradient or descriptions. Data of a task, including unseen tasks, that its
vector has seen: random and descriptions none, text unlabelled inputs, finetuned_text, fisher and gradient labelled rows.
For few-shot fine-tuning, --samples each computes one vector per sample from its own rows; --recipe published uses the
settings of the published code. By default the embedded gym and tiny BART are read, with all samples of a task (meta.json:
labelled rows of all samples). Further flags are those of the command, routing-moe vectors METHOD.

reduce: principal components fitted on the train tasks of the split; by default of the Fisher vectors of the embedded gym,
which are computed if necessary. Further flags replace the default --transform log, which is meant for Fisher vectors.
inspect: do tasks with similar vectors have the same label? Tables and heat maps of several folders of vectors.
The same command continues after an interruption; finished vectors are kept.
"""

import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from dataloader.errors import InputError
from routing_moe.config.flags import AT_LEAST_1, group
from routing_moe.studies.recipes import GYMS, SKILL, DataFlags, TrainingRecipe, command, tiny_bart
from routing_moe.studies.runs import call_all
from routing_moe.studies.study import RUNNING, part_of, run_study
from routing_moe.studies.training import in_turn

VECTORS = group("vectors")
METHODS = ("random", "text", "finetuned_text", "fisher", "gradient", "descriptions")
FOLDER = Path("data/task_vectors")
DESCRIPTIONS = Path("dataloader/descriptions.json")  # of CrossFit's 160 tasks
# Of the embedded skill gym. All tasks have the same number of examples, so that vectors are comparable; the five samples
# of an unseen task have 160 in total. The vector of an unseen task is then computed from labels of all its samples.
EXAMPLES = dict(samples="all", max_examples=160)
TRAINING = {"finetuned_text": dict(total_steps=100, learning_rate=3e-4), "fisher": dict(total_steps=100)}


@dataclass(frozen=True, kw_only=True)
class Computing(DataFlags):
    # fmt: off
    program = "routing-moe recipe vectors"
    takes_further = True

    output_dir: Path | None = RUNNING(None, f"folder of the vectors (default: {FOLDER}/METHOD)")
    num_workers: int = RUNNING(1, "tasks computed at the same time", range=AT_LEAST_1)
    descriptions: Path | None = VECTORS(None, f"with the method descriptions: JSON file (default: {DESCRIPTIONS})")
    # fmt: on


def compute(method: str, flags: Computing) -> int:
    recipe = TrainingRecipe.chosen(flags)
    folder = flags.output_dir or FOLDER / method
    reader = "" if method in ("random", "descriptions") else f" by {recipe.model}"
    workers = f"{flags.num_workers} task(s) at a time"
    print(recipe.announced(f"{method} vectors{reader}", workers, folder, flags.further), flush=True)
    if method != "descriptions":
        return in_turn(
            recipe, [vectors_command(recipe, method, folder, *flags.further, num_workers=flags.num_workers)]
        )
    is_embedded = flags.train_dir is None and recipe.embedded == SKILL
    file = flags.descriptions or (GYMS[SKILL] / "descriptions.json" if is_embedded else DESCRIPTIONS)
    descriptions = command(
        "task.task_emb.descriptions",
        **dict(descriptions=file, train_dir=flags.train_dir, custom_tasks_splits=recipe.split),
        **dict(num_workers=flags.num_workers, output_dir=folder),
        further=flags.further,
    )
    return in_turn(recipe, [descriptions])


def vectors_command(
    recipe: TrainingRecipe,
    method: str,
    folder: Path,
    *further: str,
    num_workers: int = 1,
    model: str | Path | None = None,
    **flags: Any,
) -> list[str]:
    """Returns the command that computes vectors. model: another one than the recipe's."""
    if method == "random":
        flags |= dict(taskvecs_dim=recipe.width)
    else:
        is_embedded = recipe.embedded == SKILL
        texts = recipe.texts
        if method == "text":  # no answers are read
            texts = {name: value for name, value in texts.items() if name == "max_input_length"}
        flags |= dict(model=model or recipe.model, **texts)
        flags |= EXAMPLES if is_embedded and not model else {}
        flags |= TRAINING.get(method, {}) if is_embedded else {}
    return command(
        f"task.task_emb.{method}",
        **dict(
            custom_tasks_splits=recipe.split, num_workers=num_workers, output_dir=folder, train_dir=recipe.gym
        ),
        **flags,
        further=further,
    )


# ---- reduction


@dataclass(frozen=True, kw_only=True)
class Reducing(DataFlags):
    # fmt: off
    program = "routing-moe recipe vectors"
    takes_further = True

    taskvecs: Path = VECTORS(FOLDER / "fisher", "folder of the vectors")
    output_dir: Path | None = RUNNING(None, "folder of the reduced vectors (default: that of --taskvecs followed by DIM)")
    dim: int | None = VECTORS(None, "number of components (default: 64; on the embedded gym 16)", range=AT_LEAST_1)
    # fmt: on


def reduce(flags: Reducing) -> int:
    embedded = not (flags.custom_tasks_splits or flags.train_dir)
    split = flags.custom_tasks_splits or (flags.train_dir or GYMS[SKILL]) / "split.json"
    dim = flags.dim or (16 if embedded else 64)
    folder = flags.output_dir or Path(f"{flags.taskvecs}{dim}")
    further = flags.further or ("--transform", "log")
    print(
        f"task vectors {flags.taskvecs}, {dim} principal components of the train tasks of {split}; "
        f"output in {folder}; flags: {' '.join(further)}",
        flush=True,
    )
    recipe = TrainingRecipe.chosen(DataFlags(model=str(tiny_bart()), mixed_precision=flags.mixed_precision))
    reduction = reduce_command(flags.taskvecs, split, dim, folder, *further)
    if not embedded:
        return call_all(reduction)
    is_made_here = flags.taskvecs == FOLDER / "fisher"
    return in_turn(
        recipe, [*([vectors_command(recipe, "fisher", flags.taskvecs)] if is_made_here else []), reduction]
    )


def reduce_command(vectors: Path, split: Path, dim: int, folder: Path, *further: str) -> list[str]:
    return command(
        "task.task_emb.reduce",
        **dict(taskvecs=vectors, custom_tasks_splits=split, dim=dim, output_dir=folder),
        further=further or ("--transform", "log"),
    )


# ---- inspection


@dataclass(frozen=True, kw_only=True)
class Inspecting(DataFlags):
    # fmt: off
    program = "routing-moe recipe vectors"
    takes_further = True

    taskvecs_dirs: tuple[Path, ...] = VECTORS((), f"folders with id2task.json and task_vecs.npy (default: all in {FOLDER})")
    output_dir: Path = RUNNING(Path("data/task_vectors_inspected"), "folder of tables and pictures")
    # fmt: on


def inspect(flags: Inspecting) -> int:
    folders = flags.taskvecs_dirs or tuple(sorted(path.parent for path in FOLDER.glob("*/task_vecs.npy")))
    if not folders:
        raise InputError(
            f"no folder in {FOLDER} has a task_vecs.npy; give --taskvecs_dirs, folders of vectors"
        )
    recipe = TrainingRecipe.chosen(replace(flags, model=str(tiny_bart())))
    inspection = command(
        "task.task_emb.inspect",
        **dict(
            taskvecs=folders,
            train_dir=recipe.gym,
            custom_tasks_splits=recipe.split,
            output_dir=flags.output_dir,
        ),
        labels=None if flags.train_dir else recipe.gym / "skills.csv",
        further=flags.further,
    )
    return in_turn(recipe, [inspection])


PARTS = {
    **{method: (partial(compute, method), Computing) for method in METHODS},
    "reduce": (reduce, Reducing),
    "inspect": (inspect, Inspecting),
}


def main(argv: list[str] | None = None) -> int:
    (run, flags), line = part_of(argv, "METHOD", PARTS)
    return run_study(run, flags, line, __doc__)


if __name__ == "__main__":
    sys.exit(main())
