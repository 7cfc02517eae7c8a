"""Task vectors for --taskvecs of training: computed, reduced, or looked at.

    bash example_scripts/task_vectors.sh METHOD [FLAGS]
    bash example_scripts/reduce_task_vectors.sh [FLAGS]
    bash example_scripts/inspect_task_vectors.sh [FLAGS]
    python -m routing_moe.studies.vectors METHOD|reduce|inspect [FLAGS]

METHOD is random, text, finetuned_text, fisher, gradient or descriptions. Data of a task, including unseen tasks, that its
vector has seen: random and descriptions none, text unlabelled inputs, finetuned_text, fisher and gradient labelled rows.
For few-shot fine-tuning, --samples each computes one vector per sample from its own rows; --recipe published uses the
settings of the published code. By default the embedded gym and tiny BART are read, with all samples of a task (meta.json:
labelled rows of all samples). Further flags are those of the command, task.task_emb.METHOD.

reduce: principal components fitted on the train tasks of the split; by default of the Fisher vectors of the embedded gym,
which are computed if necessary. Further flags replace the default --transform log, which is meant for Fisher vectors.
inspect: do tasks with similar vectors have the same label? Tables and heat maps of several folders of vectors.
The same command continues after an interruption; finished vectors are kept.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from dataloader.errors import InputError, did_you_mean
from routing_moe.config.flags import AT_LEAST_1, group
from routing_moe.studies.recipes import GYMS, SKILL, DataFlags, TrainingRecipe, tiny_bart, words
from routing_moe.studies.study import RUNNING, run_study
from routing_moe.studies.training import in_turn

VECTORS = group("vectors")
METHODS = ("random", "text", "finetuned_text", "fisher", "gradient", "descriptions")
FOLDER = Path("data/task_vectors")
DESCRIPTIONS = Path("dataloader/descriptions.json")  # of CrossFit's 160 tasks
# Of the embedded skill gym. All tasks have the same number of examples, so that vectors are comparable; the five samples
# of an unseen task have 160 in total. The vector of an unseen task is then computed from labels of all its samples.
EXAMPLES = ("--samples", "all", "--max_examples", "160")
TRAINING = {
    "finetuned_text": ("--total_steps", "100", "--learning_rate", "3e-4"),
    "fisher": ("--total_steps", "100"),
}


# fmt: off
@dataclass(frozen=True, kw_only=True)
class Computing(DataFlags):
    program = "python -m routing_moe.studies.vectors"
    takes_further = True

    output_dir: Path | None = RUNNING(None, f"folder of the vectors (default: {FOLDER}/METHOD)")
    num_workers: int = RUNNING(1, "tasks computed at the same time", range=AT_LEAST_1)
    descriptions: Path | None = VECTORS(None, f"with the method descriptions: JSON file (default: {DESCRIPTIONS})")
    # fmt: on


def compute(method: str, flags: Computing) -> int:
    recipe = TrainingRecipe.chosen(flags)
    folder = flags.output_dir or FOLDER / method
    reader = "" if method in ("random", "descriptions") else f" by {recipe.model}"
    print(
        recipe.announced(
            f"{method} vectors{reader}",
            f"{flags.num_workers} task(s) at a time",
            folder,
            " ".join(flags.further),
        ),
        flush=True,
    )
    if method == "descriptions":
        own = flags.train_dir is None and recipe.embedded == SKILL
        file = flags.descriptions or (GYMS[SKILL] / "descriptions.json" if own else DESCRIPTIONS)
        command = words("task.task_emb.descriptions", "--descriptions", file, *split_flags(recipe))
        command += words("--num_workers", flags.num_workers, "--output_dir", folder, *flags.further)
    else:
        command = vectors_command(recipe, method, folder, *flags.further, workers=flags.num_workers)
    return in_turn(recipe, [command])


def vectors_command(
    recipe: TrainingRecipe,
    method: str,
    folder: Path,
    *further: str,
    workers: int = 1,
    model: str | Path | None = None,
) -> list[str]:
    """Returns the command that computes vectors. model: another one than the recipe's."""
    if method == "random":
        flags = ("--taskvecs_dim", recipe.width) if recipe.width else ()
    else:
        examples = EXAMPLES if recipe.embedded == SKILL and not model else ()
        training = TRAINING.get(method, ()) if recipe.embedded == SKILL else ()
        texts = recipe.texts[:2] if method == "text" else recipe.texts  # no answers are read
        flags = ("--model", model or recipe.model, *texts, *examples, *training)
    return words(
        *(f"task.task_emb.{method}", *split_flags(recipe), "--num_workers", workers, "--output_dir", folder),
        *("--train_dir", recipe.gym, *flags, *further),
    )


def split_flags(recipe: TrainingRecipe) -> tuple:
    return ("--custom_tasks_splits", recipe.split) if recipe.split else ()


# ---- reduction


# fmt: off
@dataclass(frozen=True, kw_only=True)
class Reducing(DataFlags):
    program = "python -m routing_moe.studies.vectors"
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
    makes = embedded and flags.taskvecs == FOLDER / "fisher"
    before = [vectors_command(recipe, "fisher", flags.taskvecs)] if makes else []
    commands = [*before, reduce_command(flags.taskvecs, split, dim, folder, *further)]
    return in_turn(recipe if embedded else replace(recipe, embedded="", gym=split.parent), commands)


def reduce_command(vectors: Path, split: Path, dim: int, folder: Path, *further: str) -> list[str]:
    flags = ("--taskvecs", vectors, "--custom_tasks_splits", split, "--dim", dim, "--output_dir", folder)
    return words("task.task_emb.reduce", *flags, *(further or ("--transform", "log")))


def fisher_commands(
    recipe: TrainingRecipe, folder: Path, reduced: Path, dim: int
) -> tuple[list[str], list[str]]:
    """Returns the commands that compute Fisher vectors and reduce them."""
    return vectors_command(recipe, "fisher", folder), reduce_command(folder, recipe.split_file, dim, reduced)


# ---- inspection


# fmt: off
@dataclass(frozen=True, kw_only=True)
class Inspecting(DataFlags):
    program = "python -m routing_moe.studies.vectors"
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
    labels = ("--labels", recipe.gym / "skills.csv") if not flags.train_dir else ()
    command = words(
        *(
            "task.task_emb.inspect",
            "--taskvecs",
            *folders,
            "--train_dir",
            recipe.gym,
            *split_flags(recipe),
            *labels,
        ),
        *("--output_dir", flags.output_dir, *flags.further),
    )
    return in_turn(recipe, [command])


OTHERS = {"reduce": (reduce, Reducing), "inspect": (inspect, Inspecting)}


def main(argv: list[str] | None = None) -> int:
    name, *given = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in OTHERS:
        run, flags = OTHERS[name]
    elif name in METHODS:
        run, flags = (lambda computing: compute(name, computing)), Computing
    elif name.startswith("-"):
        run, flags, given = compute, Computing, [name]
    else:
        choices = (*METHODS, *OTHERS)
        print(
            f"error: unknown METHOD {name!r}{did_you_mean(name, choices)}; give one of {', '.join(choices)}",
            file=sys.stderr,
        )
        return 2
    return run_study(run, flags, given, __doc__)


if __name__ == "__main__":
    sys.exit(main())
