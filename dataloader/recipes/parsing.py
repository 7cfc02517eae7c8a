"""Structure of sentences: acronyms (Veyseh et al. 2020), Break (Wolfson et al. 2020), LiMiT (Manotas et al.
2020), Spider (Yu et al. 2018) and WikiSQL (Zhong et al. 2017)."""

from collections.abc import Iterator

from dataloader.building.raw_file import RawFile, records
from dataloader.building.recipe import Hub, Raw, Recipe, Row, text_to_text
from dataloader.building.text import clean

ACRONYMS = "https://raw.githubusercontent.com/amirveyseh/AAAI-21-SDU-shared-task-1-AI/master/dataset/"
ACRONYM_LABELS = ("B-long", "B-short", "I-long", "I-short", "O")
BREAK = "https://github.com/allenai/Break/raw/master/break_dataset/Break-dataset.zip!Break-dataset/"
LIMIT = (
    "https://raw.githubusercontent.com/ilmgut/limit_dataset/0707d3989cd8848f0f11527c77dcf168fefd2b23/data/"
)


def read_acronyms(_: str, file: RawFile) -> Iterator[Row]:
    for item in file.json():
        labels = [ACRONYM_LABELS.index(label) for label in item["labels"]]
        yield {"tokens": item["tokens"], "labels": labels}


def acronym_span(row: Row, kind: str) -> str:
    """Returns the words of the first span; kind: "long" or "short"."""
    begin, inside = ACRONYM_LABELS.index(f"B-{kind}"), ACRONYM_LABELS.index(f"I-{kind}")
    start = row["labels"].index(begin)
    end = start + 1
    while end < len(row["labels"]) and row["labels"][end] == inside:
        end += 1
    return " ".join(row["tokens"][start:end])


def has_one_acronym(row: Row) -> bool:
    return all(row["labels"].count(ACRONYM_LABELS.index(label)) == 1 for label in ("B-long", "B-short"))


def read_limit(_: str, file: RawFile) -> Iterator[Row]:
    """Yields the sentences of a JSON object; the entities are lines "entity:start"."""
    for item in file.json().values():
        lines = filter(None, (item["motion_entity"] or "").split("\n"))
        entities = [{"entity": line.rpartition(":")[0]} for line in lines]
        yield {"sentence": item["sentence"], "motion": item["motion"], "motion_entities": entities}


def break_questions(config: str) -> Recipe:
    return text_to_text(
        f"break-{config}",
        Raw(records, train=f"{BREAK}{config}/train.csv", validation=f"{BREAK}{config}/dev.csv"),
        Hub("allenai/break_data", config),
        input="question: {question_text}",
        output="{decomposition}",
    )


RECIPES = [
    text_to_text(
        "acronym_identification",
        Raw(read_acronyms, train=f"{ACRONYMS}train.json", validation=f"{ACRONYMS}dev.json"),
        Hub("amirveyseh/acronym_identification"),
        keep=has_one_acronym,
        input=lambda row: f"{' '.join(row['tokens'])} [SEP] acronym: {acronym_span(row, 'short')}",
        output=lambda row: acronym_span(row, "long"),
        terms="CC BY-NC-SA 4.0: non-commercial use",
    ),
    break_questions("QDMR"),
    break_questions("QDMR-high-level"),
    text_to_text(
        "limit",
        Raw(read_limit, train=f"{LIMIT}train.json", test=f"{LIMIT}test.json"),
        Hub("IBM/limit"),
        splits=("train", "test"),
        keep=lambda row: row["motion"] == "yes",
        input=lambda row: row["sentence"].strip(),
        output=lambda row: " [SEP] ".join(item["entity"] for item in row["motion_entities"]),
    ),
    text_to_text(
        "spider",
        Hub("xlangai/spider"),
        input=lambda row: clean(row["question"]),
        output=lambda row: clean(row["query"]),
    ),
    text_to_text(
        "wikisql",
        Hub("Salesforce/wikisql"),
        input=lambda row: clean(row["question"]),
        output=lambda row: row["sql"]["human_readable"].strip(),
    ),
]
