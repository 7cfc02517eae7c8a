"""Which task vectors know what kind a task is: do tasks with similar vectors have the same label?

    python -m task.task_emb.inspect --taskvecs data/task_vectors/text --output_dir data/inspected
    python -m task.task_emb.inspect --taskvecs data/task_vectors/text data/task_vectors/fisher \\
        --names "text" "Fisher" --train_dir data/gym --tasks train --output_dir data/inspected
    python -m task.task_emb.inspect --taskvecs data/task_vectors/* --train_dir data/skill_gym \\
        --labels data/skill_gym/skills.csv --output_dir data/inspected

Writes agreement.md and agreement.csv (accuracy of the nearest neighbours' majority label, left one out, with
a permutation test, and silhouette, for each folder and labelling), agreement.png and .pdf (the same as dots),
neighbours.csv (the nearest tasks of each), similarity.png and .pdf (heat maps, tasks by tasks). Labellings:
the ontology's category and subcategory, and the columns of --labels. Exits with 2 where nothing is written.
"""

import argparse
import dataclasses
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from dataloader.ontology import UNCATEGORISED, Ontology
from routing_moe.cli.console import parse_or_guess, reporting_errors
from routing_moe.io.files import write_text
from routing_moe.plots.similarity import Panel, plot_agreement, plot_similarities
from routing_moe.plots.style import HeatScale
from routing_moe.results.scores import markdown_table
from task.task_emb.agreement import DISTANCES, agreement, all_alike, centred, nearest, similarity
from task.task_emb.inspect_inputs import Inputs, Settings, check

ALL_ALIKE = "all tasks are equally far apart, none is another's nearest"
AGREEMENT_COLUMNS = (
    "vectors", "dimension", "labelling", "tasks", "labels", "scored",
    "silhouette", "k", "accuracy", "chance", "p",
)  # fmt: skip
NEIGHBOUR_COLUMNS = (
    "vectors", "task", "category", "rank", "neighbour", "similarity", "same_category", "same_subcategory",
)  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    settings = parse_settings(argv)
    with reporting_errors() as result:
        inputs = check(settings)
        distances = {name: distances_of(vectors_ND, settings) for name, vectors_ND in inputs.vectors.items()}
        inputs.notes.extend(f"{name}: {ALL_ALIKE}" for name in distances if all_alike(distances[name]))
        table = agreement_table(inputs, distances, settings)
        text = agreement_text(inputs, table, settings)
        write(inputs, distances, table, text, settings)
        for note in inputs.notes:
            print(f"note: {note}", file=sys.stderr)
        place = settings.output_dir
        print(f"{text}\n{place / 'agreement'}.md, .csv, .png, .pdf; {place / 'similarity'}.png, .pdf")
        print(place / "neighbours.csv")
    return result.exit_code


def parse_settings(argv: list[str] | None) -> Settings:
    flags = vars(parse_or_guess(build_parser(), argv))
    lists = {name: tuple(value) for name, value in flags.items() if isinstance(value, list)}
    return Settings(**flags | lists)


# fmt: off
def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m task.task_emb.inspect",
        usage="%(prog)s --taskvecs FOLDER [FOLDER ...] --output_dir FOLDER [flags, see --help]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # an abbreviated flag would change its meaning when a new one is added
    )
    add = parser.add_argument_group("what is compared").add_argument
    add("--taskvecs", nargs="+", required=True, metavar="FOLDER", help="with id2task.json and task_vecs.npy")
    add("--names", nargs="+", default=None, metavar="NAME", help="of the folders, in tables and pictures")
    add("--tasks", nargs="+", default=None, metavar="WORD", help="tasks, or sections of the split: train, "
        "dev, test, all, file.json:section (default: the tasks that every folder has)")
    add("--custom_tasks_splits", default=None, metavar="FILE", help="split of the sections in --tasks "
        "(default: split.json in --train_dir)")
    add = parser.add_argument_group("labels of tasks").add_argument
    add("--train_dir", default=None, metavar="GYM", help="of it only ontology.json and split.json are read")
    add("--task_ontology", default=None, metavar="FILE", help="two-level ontology JSON (default: "
        "ontology.json in --train_dir, else that of the 160 CrossFit tasks)")
    add("--labels", default=None, metavar="CSV", help="more labellings: a column task, and columns of "
        "labels, or of 0 and 1 if named kind:value")
    add = parser.add_argument_group("what is computed").add_argument
    add("--neighbours", type=int, default=3, metavar="K", help="nearest tasks that vote (default: 3)")
    add("--similarity", choices=tuple(DISTANCES), default="cosine", help="of vectors (default: cosine)")
    add("--no_centring", dest="centring", action="store_false", help="cosine of the vectors as they are; "
        "otherwise their mean over the tasks is taken off")
    add("--permutations", type=int, default=10_000, metavar="P", help="shufflings of the labels (default: "
        "10000); no p is less than 1 / (1 + P)")
    add("--seed", type=int, default=0, help="of the shufflings (default: 0)")
    add = parser.add_argument_group("what is written").add_argument
    add("--output_dir", type=Path, required=True, metavar="FOLDER", help="results there are replaced")
    add("--title", default=None, help="above the pictures (default: none)")
    return parser
# fmt: on


# ---------------------------------------------------------------------------- results


def distances_of(vectors_ND: np.ndarray, settings: Settings) -> np.ndarray:
    """How far apart each two tasks are (N, N)."""
    return DISTANCES[settings.similarity](centred(vectors_ND) if settings.is_centred else vectors_ND)


def agreement_table(inputs: Inputs, distances: Mapping[str, np.ndarray], settings: Settings) -> pd.DataFrame:
    """A row for each folder and labelling: what `agreement` finds."""
    rows = []
    for name, distance_NN in distances.items():
        for kind, labelling in inputs.labellings.items():
            labels = [labelling.get(task) for task in inputs.tasks]
            k, permutations = settings.neighbours, settings.permutations
            found = agreement(distance_NN, labels, k, permutations, settings.seed)
            what = dict(vectors=name, dimension=inputs.vectors[name].shape[1], labelling=kind, k=k)
            rows.append(what | dataclasses.asdict(found))
    return pd.DataFrame(rows)[list(AGREEMENT_COLUMNS)]


def agreement_text(inputs: Inputs, table: pd.DataFrame, settings: Settings) -> str:
    """What agreement.md holds: how to read the table, the table, the notes."""
    k, n = settings.neighbours, len(inputs.tasks)
    voters = "that of the nearest other task" if k == 1 else f"the most frequent of the {k} nearest others"
    distance = "cosine similarity" if settings.similarity == "cosine" else "Euclidean distance"
    less = f" less their mean over the {n} tasks" if settings.is_centred else ""
    explained = (
        f"Do similar vectors mean similar tasks? {n} tasks; a cell is accuracy (p) / silhouette. Accuracy: "
        f"the share of tasks whose label is {voters}, by {distance} of the vectors{less}; over the tasks "
        "whose label another one has too, their number is in brackets. p: how often shuffled labels do as "
        f"well or better, of {settings.permutations} shufflings, not corrected for the number of tests; "
        "chance: mean accuracy of these. Silhouette, of the same tasks: near 1 where those of a label are "
        "among themselves, 0 where labels are mixed. -: "
        "cannot be said (a single label, none that occurs twice, no more than k tasks with one, or all tasks "
        "equally far apart)."
    )
    by_folder, by_kind = (table.groupby(what, sort=False) for what in ("vectors", "labelling"))
    rows = [[_cell(row) for row in rows.itertuples()] for _, rows in by_folder]
    rows.append([_shown(chance) for chance in by_kind["chance"].mean()])
    heads = [f"{kind} ({scored})" for kind, scored in by_kind["scored"].first().items()]
    index = pd.Index([*inputs.vectors, "chance"], name="vectors")
    body = markdown_table(pd.DataFrame(rows, index=index, columns=heads))
    notes = "".join(f"\n- {note}" for note in inputs.notes)
    return f"{textwrap.fill(explained, 100)}\n\n{body}\n" + (f"{notes}\n" if notes else "")


def _cell(row) -> str:
    if np.isnan(row.accuracy):
        return "-"
    return f"{_shown(row.accuracy)} (p {row.p:.2g}) / {_shown(row.silhouette)}"


def _shown(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"


def neighbours_table(inputs: Inputs, distances: Mapping[str, np.ndarray], settings: Settings) -> pd.DataFrame:
    """The k nearest tasks of each. same_category, same_subcategory: 1 or 0, empty where not known of both."""
    rows = []
    for name, distance_NN in distances.items():
        if all_alike(distance_NN):
            continue
        similarity_NN = similarity(distance_NN, settings.similarity)
        for row, columns in enumerate(nearest(distance_NN, settings.neighbours)):
            task = inputs.tasks[row]
            for rank, column in enumerate(columns, start=1):
                neighbour = inputs.tasks[column]
                category = inputs.ontology.category(task)[0]
                alike = _same_kinds(task, neighbour, inputs.ontology)
                value = round(float(similarity_NN[row, column]), 6)
                rows.append((name, task, category, rank, neighbour, value, *alike))
    return pd.DataFrame(rows, columns=NEIGHBOUR_COLUMNS)


def _same_kinds(task: str, other: str, ontology: Ontology) -> tuple[str, str]:
    one, two = ontology.category(task), ontology.category(other)
    if UNCATEGORISED in (one, two):
        return "", ""
    return str(int(one[0] == two[0])), str(int(one == two))


def panels_of(distances: Mapping[str, np.ndarray], table: pd.DataFrame, measure: str) -> list[Panel]:
    """A heat map for each folder: cosines, or distances as a share of the folder's largest."""
    panels = []
    categories = table[table["labelling"] == "category"].set_index("vectors")
    for name, distance_NN in distances.items():
        found = categories.loc[name]
        note = "category: accuracy -"
        if not np.isnan(found.accuracy):
            note = f"category: accuracy {found.accuracy:.2f}, chance {found.chance:.2f}"
        largest = distance_NN.max() or 1.0
        values_NN = similarity(distance_NN, measure) if measure == "cosine" else distance_NN / largest
        panels.append(Panel(name, note, values_NN))
    return panels


def write(inputs: Inputs, distances: Mapping, table: pd.DataFrame, text: str, settings: Settings) -> None:
    """Writes the seven files."""
    place = settings.output_dir
    place.mkdir(parents=True, exist_ok=True)
    neighbours = neighbours_table(inputs, distances, settings)
    write_text(place / "agreement.csv", table.to_csv(index=False, float_format="%.6g"))
    write_text(place / "neighbours.csv", neighbours.to_csv(index=False))
    write_text(place / "agreement.md", text)
    scale = HeatScale("cosine similarity" + ", centred" * settings.is_centred)
    if settings.similarity == "euclidean":
        scale = HeatScale("distance / the largest", "Blues_r", 0.0, 1.0)
    panels = panels_of(distances, table, settings.similarity)
    for kind in ("png", "pdf"):
        path = place / f"similarity.{kind}"
        plot_similarities(panels, inputs.tasks, inputs.ontology, path, scale, settings.title)
        plot_agreement(table, place / f"agreement.{kind}", settings.title)


if __name__ == "__main__":
    sys.exit(main())
