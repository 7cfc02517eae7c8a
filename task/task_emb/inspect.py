"""Compare task vectors with labels of tasks: do tasks with similar vectors have the same label?

    python -m task.task_emb.inspect --taskvecs data/task_vectors/text --output_dir data/inspected
    python -m task.task_emb.inspect --taskvecs data/task_vectors/text data/task_vectors/fisher \\
        --names "text" "Fisher" --train_dir data/gym --tasks train --output_dir data/inspected
    python -m task.task_emb.inspect --taskvecs data/task_vectors/* --train_dir data/skill_gym \\
        --labels data/skill_gym/skills.csv --output_dir data/inspected

Writes agreement.md and agreement.csv (for each folder and labelling: leave-one-out accuracy of the majority
label of the nearest neighbours, its permutation test, and the silhouette), agreement.png and .pdf (a dot plot
of these), neighbours.csv (the nearest tasks of each task), similarity.png and .pdf (heat maps, tasks by
tasks). Labellings: category and subcategory of the ontology, and the columns of --labels. Exits with 2 if an
error prevents the results.
"""

import dataclasses
import sys
import textwrap
from collections.abc import Mapping

import numpy as np
import pandas as pd

from dataloader.atomic_files import write_text
from dataloader.ontology import UNCATEGORISED, Ontology
from routing_moe.cli.console import run_command
from routing_moe.results.markdown import markdown_table
from task.task_emb.agreement import DISTANCES, agreement, all_equidistant, mean_centred, nearest, similarity
from task.task_emb.inspect_inputs import Inputs, Settings, check

EQUIDISTANT = "all distances between tasks are equal, so that no task has a nearest neighbour"
AGREEMENT_COLUMNS = (
    "vectors", "dimension", "labelling", "tasks", "labels", "scored",
    "silhouette", "k", "accuracy", "chance", "p",
)  # fmt: skip
NEIGHBOUR_COLUMNS = (
    "vectors", "task", "category", "rank", "neighbour", "similarity", "same_category", "same_subcategory",
)  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    return run_command(run, Settings, argv, __doc__)


def run(settings: Settings) -> None:
    inputs = check(settings)
    distances = {name: distances_of(vectors_ND, settings) for name, vectors_ND in inputs.vectors.items()}
    inputs.notes.extend(f"{name}: {EQUIDISTANT}" for name, d in distances.items() if all_equidistant(d))
    table = agreement_table(inputs, distances, settings)
    text = agreement_text(inputs, table, settings)
    write(inputs, distances, table, text, settings)
    for note in inputs.notes:
        print(f"note: {note}", file=sys.stderr)
    folder = settings.output_dir
    print(f"{text}\n{folder / 'agreement'}.md, .csv, .png, .pdf; {folder / 'similarity'}.png, .pdf")
    print(folder / "neighbours.csv")


# ---------------------------------------------------------------------------- results


def distances_of(vectors_ND: np.ndarray, settings: Settings) -> np.ndarray:
    """Returns pairwise distances of the tasks (N, N)."""
    return DISTANCES[settings.similarity](mean_centred(vectors_ND) if settings.is_centred else vectors_ND)


def agreement_table(inputs: Inputs, distances: Mapping[str, np.ndarray], settings: Settings) -> pd.DataFrame:
    """Returns one row of results of `agreement` per folder and labelling; columns AGREEMENT_COLUMNS."""
    rows = []
    for name, distance_NN in distances.items():
        for labelling, label_of in inputs.labellings.items():
            labels = [label_of.get(task) for task in inputs.tasks]
            k, permutations = settings.neighbours, settings.permutations
            result = agreement(distance_NN, labels, k, permutations, settings.seed)
            keys = dict(vectors=name, dimension=inputs.vectors[name].shape[1], labelling=labelling, k=k)
            rows.append(keys | dataclasses.asdict(result))
    return pd.DataFrame(rows)[list(AGREEMENT_COLUMNS)]


def agreement_text(inputs: Inputs, table: pd.DataFrame, settings: Settings) -> str:
    """Returns the content of agreement.md: an explanation, the table, the notes."""
    k, n = settings.neighbours, len(inputs.tasks)
    predicted = (
        "that of the nearest other task" if k == 1 else f"the majority label of the {k} nearest others"
    )
    distance = "cosine similarity" if settings.similarity == "cosine" else "Euclidean distance"
    centring = f" minus their mean over the {n} tasks" if settings.is_centred else ""
    explanation = (
        f"Do tasks with similar vectors have the same label? {n} tasks; cells: accuracy (p) / silhouette. "
        f"Accuracy: the share of tasks whose label is {predicted}, by {distance} of the vectors{centring}. "
        "Only tasks whose label occurs at least twice are scored; their number is in brackets. p: by "
        f"{settings.permutations} permutations of the labels, not corrected for multiple tests; chance: mean "
        "accuracy of permuted labels. Silhouette of the same tasks: near 1 if labels form separate clusters, "
        "0 if they overlap. -: not defined (a single label, no label that occurs twice, at most k tasks with "
        "a label, or all distances equal)."
    )
    by_folder, by_labelling = (table.groupby(column, sort=False) for column in ("vectors", "labelling"))
    rows = [[_cell(row) for row in rows.itertuples()] for _, rows in by_folder]
    rows.append([_formatted(chance) for chance in by_labelling["chance"].mean()])
    heads = [f"{labelling} ({scored})" for labelling, scored in by_labelling["scored"].first().items()]
    index = pd.Index([*inputs.vectors, "chance"], name="vectors")
    body = markdown_table(pd.DataFrame(rows, index=index, columns=heads))
    notes = "".join(f"\n- {note}" for note in inputs.notes)
    return f"{textwrap.fill(explanation, 100)}\n\n{body}\n" + (f"{notes}\n" if notes else "")


def _cell(row) -> str:
    if np.isnan(row.accuracy):
        return "-"
    return f"{_formatted(row.accuracy)} (p {row.p:.2g}) / {_formatted(row.silhouette)}"


def _formatted(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"


def neighbours_table(inputs: Inputs, distances: Mapping[str, np.ndarray], settings: Settings) -> pd.DataFrame:
    """Returns the k nearest tasks of each task; columns NEIGHBOUR_COLUMNS.

    same_category, same_subcategory: 1 or 0, empty if one of the tasks is not in the ontology.
    """
    rows = []
    for name, distance_NN in distances.items():
        if all_equidistant(distance_NN):
            continue
        similarity_NN = similarity(distance_NN, settings.similarity)
        for row, columns in enumerate(nearest(distance_NN, settings.neighbours)):
            task = inputs.tasks[row]
            for rank, column in enumerate(columns, start=1):
                neighbour = inputs.tasks[column]
                category = inputs.ontology.category(task)[0]
                same = _same_categories(task, neighbour, inputs.ontology)
                value = round(float(similarity_NN[row, column]), 6)
                rows.append((name, task, category, rank, neighbour, value, *same))
    return pd.DataFrame(rows, columns=NEIGHBOUR_COLUMNS)


def _same_categories(task: str, other: str, ontology: Ontology) -> tuple[str, str]:
    one, two = ontology.category(task), ontology.category(other)
    if UNCATEGORISED in (one, two):
        return "", ""
    return str(int(one[0] == two[0])), str(int(one == two))


def panels_of(distances: Mapping[str, np.ndarray], table: pd.DataFrame, measure: str) -> list:
    """Returns a `Panel` per folder: a heat map of cosines, or of distances divided by the largest."""
    from routing_moe.plots.similarity import Panel

    panels = []
    categories = table[table["labelling"] == "category"].set_index("vectors")
    for name, distance_NN in distances.items():
        result = categories.loc[name]
        note = "category: accuracy -"
        if not np.isnan(result.accuracy):
            note = f"category: accuracy {result.accuracy:.2f}, chance {result.chance:.2f}"
        largest = distance_NN.max() or 1.0
        values_NN = similarity(distance_NN, measure) if measure == "cosine" else distance_NN / largest
        panels.append(Panel(name, note, values_NN))
    return panels


def write(inputs: Inputs, distances: Mapping, table: pd.DataFrame, text: str, settings: Settings) -> None:
    """Writes all tables and pictures into the output folder."""
    # Matplotlib is imported here, after the checks: it takes half a second.
    from routing_moe.plots.agreement import plot_agreement
    from routing_moe.plots.similarity import plot_similarities
    from routing_moe.plots.style import HeatScale

    folder = settings.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    neighbours = neighbours_table(inputs, distances, settings)
    write_text(folder / "agreement.csv", table.to_csv(index=False, float_format="%.6g"))
    write_text(folder / "neighbours.csv", neighbours.to_csv(index=False))
    write_text(folder / "agreement.md", text)
    scale = HeatScale("cosine similarity" + ", centred" * settings.is_centred)
    if settings.similarity == "euclidean":
        scale = HeatScale("distance / the largest", "Blues_r", 0.0, 1.0)
    panels = panels_of(distances, table, settings.similarity)
    for file_format in ("png", "pdf"):
        path = folder / f"similarity.{file_format}"
        plot_similarities(panels, inputs.tasks, inputs.ontology, path, scale, settings.title)
        plot_agreement(table, folder / f"agreement.{file_format}", settings.title)


if __name__ == "__main__":
    sys.exit(main())
