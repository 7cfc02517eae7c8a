"""GLUE (Wang et al. 2018): grammar, paraphrase and inference of sentence pairs."""

from collections.abc import Iterator

from dataloader.building.raw_file import RawFile, cells, with_label_indices
from dataloader.building.recipe import Hub, Raw, Row, classification
from dataloader.building.text import word

ARCHIVES = "https://dl.fbaipublicfiles.com/glue/data/"
MRPC = "https://dl.fbaipublicfiles.com/senteval/senteval_data/msr_paraphrase_train.txt"
ENTAILMENT = ("entailment", "not_entailment")
RESEARCH = "research use only"
PAIR = "sentence 1: {sentence1} [SEP] sentence 2: {sentence2}"


def glue(config: str, read, archive: str) -> tuple:
    """Returns the sources of a task: the hub and the original archive."""
    folder = archive.removesuffix("v2")
    members = {"train": f"{folder}/train.tsv", "validation": f"{folder}/dev.tsv"}
    return (
        Hub("nyu-mll/glue", config),
        Raw(read, **{split: f"{ARCHIVES}{archive}.zip!{member}" for split, member in members.items()}),
    )


def read_labelled(*labels: str):
    """Returns the reader of a TSV file whose last column "label" has these words, or their indices."""

    def read(_: str, file: RawFile) -> Iterator[Row]:
        return with_label_indices(file.records("\t", quoted=False), labels)

    return read


def read_mrpc(split: str, pairs: RawFile, dev_ids: RawFile) -> Iterator[Row]:
    """Yields the pairs of a split; dev_ids: identifiers of the pairs of the validation split."""
    validation = {tuple(row) for row in dev_ids.table("\t", quoted=False)}
    for row in pairs.records("\t", quoted=False, encoding="utf-8-sig"):  # it has a byte order mark
        if ((row["#1 ID"], row["#2 ID"]) in validation) == (split == "validation"):
            label = int(row["Quality"])
            yield {"sentence1": row["#1 String"], "sentence2": row["#2 String"], "label": label}


RECIPES = [
    classification(
        "glue-cola",
        *glue("cola", cells("\t", quoted=False, sentence=3, label=1), "CoLA"),
        input="{sentence}",
        output=word("label", "unacceptable", "acceptable"),
        terms=RESEARCH,
    ),
    classification(
        "glue-mnli",
        Hub("nyu-mll/glue", "mnli"),
        splits=("train", "validation_matched"),
        input="premise: {premise} [SEP] hypothesis: {hypothesis}",
        output=word("label", "entailment", "neutral", "contradiction"),
    ),
    classification(
        "glue-mrpc",
        Hub("nyu-mll/glue", "mrpc"),
        Raw(read_mrpc, every=(MRPC, f"{ARCHIVES}mrpc_dev_ids.tsv")),
        input=PAIR,
        output=word("label", "not_equivalent", "equivalent"),
        terms="Microsoft Research licence: research use; the text may not be passed on",
    ),
    classification(
        "glue-qnli",
        *glue("qnli", read_labelled(*ENTAILMENT), "QNLIv2"),
        input="question: {question} [SEP] sentence: {sentence}",
        output=word("label", *ENTAILMENT),
    ),
    classification(
        "glue-qqp",
        Hub("nyu-mll/glue", "qqp"),
        input="question 1: {question1} [SEP] question 2: {question2}",
        output=word("label", "not_duplicate", "duplicate"),
        terms="Quora's terms of service: non-commercial use; the questions may not be passed on",
    ),
    classification(
        "glue-rte",
        *glue("rte", read_labelled(*ENTAILMENT), "RTE"),
        input=PAIR,
        output=word("label", *ENTAILMENT),
        terms=RESEARCH,
    ),
    classification(
        "glue-sst2",
        *glue("sst2", read_labelled("negative", "positive"), "SST-2"),
        input="sentence: {sentence}",
        output=word("label", "negative", "positive"),
        terms=RESEARCH,
    ),
    classification(
        "glue-wnli",
        *glue("wnli", read_labelled("not_entailment", "entailment"), "WNLI"),
        input=PAIR,
        output=word("label", "not_entailment", "entailment"),
    ),
]
