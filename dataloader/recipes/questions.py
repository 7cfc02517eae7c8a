"""Questions: BoolQ (Clark et al. 2019), Circa (Louis et al. 2020), MC-TACO (Zhou et al. 2019), types of TREC
questions (Li and Roth 2002) and well-formed queries (Faruqui and Das 2018).
"""

from collections.abc import Iterator

import numpy as np

from dataloader.building.raw_file import RawFile, cells, json_lines
from dataloader.building.recipe import Hub, Raw, Recipe, Row, classification
from dataloader.building.text import word

BOOLQ = "https://storage.googleapis.com/boolq/"
GITHUB = "https://raw.githubusercontent.com/"
GOOGLE = f"{GITHUB}google-research-datasets/"
CIRCA_LABELS = ("Yes", "No", "In the middle, neither yes nor no", "Yes, subject to some conditions", "Other")
# fmt: off
COARSE = ("DESC", "ENTY", "ABBR", "HUM", "NUM", "LOC")
FINE = (
    "manner", "cremat", "animal", "exp", "ind", "gr", "title", "def", "date", "reason", "event", "state",
    "desc", "count", "other", "letter", "religion", "food", "country", "color", "termeq", "city", "body",
    "dismed", "mount", "money", "product", "period", "substance", "sport", "plant", "techmeth", "volsize",
    "instru", "abb", "speed", "word", "lang", "perc", "code", "dist", "temp", "symbol", "ord", "veh",
    "weight", "currency",
)
HUB_COARSE = ("ABBR", "ENTY", "DESC", "HUM", "LOC", "NUM")
HUB_FINE = (
    "abb", "exp",
    "animal", "body", "color", "cremat", "currency", "dismed", "event", "food", "instru", "lang", "letter",
    "other", "plant", "product", "religion", "sport", "substance", "symbol", "techmeth", "termeq", "veh",
    "word",
    "def", "desc", "manner", "reason",
    "gr", "ind", "title", "desc",
    "city", "country", "mount", "other", "state",
    "code", "count", "date", "dist", "money", "ord", "other", "period", "perc", "speed", "temp", "volsize",
    "weight",
)
# fmt: on


def read_queries(_: str, file: RawFile) -> Iterator[Row]:
    """Yields the queries; ratings have the precision of float32, which moves 0.4 and 0.6 up."""
    for line in file.lines():
        if "\t" in line:
            content, rating = line.split("\t")
            yield {"content": content, "rating": float(np.float32(rating))}


read_mc_taco = cells("\t", ("no", "yes"), sentence=0, question=1, answer=2, label=3)


def read_trec(_: str, file: RawFile) -> Iterator[Row]:
    """Yields the lines of "coarse:fine question"; one of them has a byte that is not UTF-8."""
    for line in file.bytes().replace(b"\xf0", b" ").splitlines():
        label, _, text = line.strip().decode().partition(" ")
        coarse, fine = label.split(":")
        yield {"text": text, "label-coarse": COARSE.index(coarse), "label-fine": FINE.index(fine)}


def trec_labels_of_2021(row: Row) -> Row:
    """Returns a row of the hub with the names and the order of labels of 2021."""
    return {
        "text": row["text"],
        "label-coarse": COARSE.index(HUB_COARSE[row["coarse_label"]]),
        "label-fine": FINE.index(HUB_FINE[row["fine_label"]]),
    }


def trec(task: str, label: str, words: tuple[str, ...]) -> Recipe:
    return classification(
        task,
        Raw(read_trec, train="https://cogcomp.seas.upenn.edu/Data/QA/QC/train_5500.label"),
        Hub("CogComp/trec", adapt=trec_labels_of_2021),
        splits=("train",),
        input="{text}",
        output=word(label, *words),
    )


RECIPES = [
    classification(
        "boolq",
        Raw(json_lines, train=f"{BOOLQ}train.jsonl", validation=f"{BOOLQ}dev.jsonl"),
        Hub("google/boolq"),
        input="question: {question} [SEP] context: {passage}",
        output=word("answer", "no", "yes"),
    ),
    classification(
        "circa",
        Hub("google-research-datasets/circa"),
        splits=("train",),
        keep=lambda row: row["goldstandard2"] != -1,
        input="context: {context} [SEP] question X: {question-X} [SEP] answer Y: {answer-Y}",
        output=word("goldstandard2", *CIRCA_LABELS),
    ),
    classification(
        "google_wellformed_query",
        Raw(
            read_queries,
            train=f"{GOOGLE}query-wellformedness/master/train.tsv",
            validation=f"{GOOGLE}query-wellformedness/master/dev.tsv",
        ),
        Hub("google-research-datasets/google_wellformed_query"),
        keep=lambda row: not 0.4 <= row["rating"] <= 0.6,
        input=lambda row: row["content"].strip(),
        output=lambda row: "well-formed" if row["rating"] > 0.6 else "not well-formed",
    ),
    classification(
        "mc_taco",
        Raw(read_mc_taco, validation=f"{GITHUB}CogComp/MCTACO/master/dataset/dev_3783.tsv"),
        Hub("CogComp/mc_taco"),
        splits=("validation",),
        input="{sentence} [SEP] {question} [SEP] {answer}",
        output=word("label", "no", "yes"),
    ),
    trec("trec", "label-coarse", COARSE),
    trec("trec-finegrained", "label-fine", FINE),
]
