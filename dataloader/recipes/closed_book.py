"""Closed-book questions: FreebaseQA (Jiang et al. 2019), Jeopardy!, ProtoQA (Boratko et al. 2020), SearchQA
(Dunn et al. 2017) and WebQuestions (Berant et al. 2013)."""

from collections.abc import Iterator

from dataloader.building.raw_file import RawFile, json_lines, json_list
from dataloader.building.recipe import Hub, Raw, Row, text_to_text
from dataloader.building.text import tabs

FREEBASE = "https://raw.githubusercontent.com/kelvin-jiang/FreebaseQA/master/FreebaseQA-"
QUOTE = "'"
JEOPARDY = "http://skeeto.s3.amazonaws.com/share/JEOPARDY_QUESTIONS1.json.gz"
PROTO = "https://raw.githubusercontent.com/iesl/protoqa-data/master/data/train/train.jsonl"
WEB_QUESTIONS = (
    "https://raw.githubusercontent.com/brmson/dataset-factoid-webquestions/"
    "668890853388010fe6ae9a5eb035a7917b88933b/main/"
)


def read_freebase(_: str, file: RawFile) -> Iterator[Row]:
    for question in file.json()["Questions"]:
        answers = [
            {"AnswersName": [answer["AnswersName"] for answer in parse["Answers"]]}
            for parse in question["Parses"]
        ]
        yield {"RawQuestion": question["RawQuestion"], "Parses": {"Answers": answers}}


def freebase_names(row: Row) -> list[str]:
    """Returns the names of all answers of all parses, each once, sorted."""
    answers = row["Parses"]["Answers"]
    return sorted({name for parse in answers for names in parse["AnswersName"] for name in names})


def read_web_questions(_: str, *files: RawFile) -> Iterator[Row]:
    """Yields the questions of all files by identifier, which is the order of the original file."""
    rows = [row for file in files for row in file.json()]
    for row in sorted(rows, key=lambda row: row["qId"]):
        yield {"question": row["qText"], "answers": row["answers"]}


RECIPES = [
    text_to_text(
        "freebase_qa",
        Raw(read_freebase, train=f"{FREEBASE}train.json", validation=f"{FREEBASE}dev.json"),
        Hub("microsoft/freebase_qa"),
        input="{RawQuestion}",
        output=lambda row: tabs(freebase_names(row)),
    ),
    text_to_text(
        "jeopardy",
        Raw(json_list, train=JEOPARDY),
        Hub("jeopardy-datasets/jeopardy"),
        splits=("train",),
        input=lambda row: f"question: {row['question'].strip(QUOTE)} [SEP] category: {row['category']}",
        output="{answer}",
    ),
    text_to_text(
        "proto_qa",
        Raw(json_lines, train=PROTO),
        splits=("train",),
        input="{question[normalized]}",
        output=lambda row: tabs(row["answers"]["raw"]),
    ),
    text_to_text(
        "search_qa",
        Hub("kyunghyuncho/search_qa", "train_test_val", columns=("question", "category", "answer")),
        input="question: {question}category: {category}",  # as published, without a space
        output="{answer}",
    ),
    text_to_text(
        "web_questions",
        Hub("stanfordnlp/web_questions"),
        Raw(
            read_web_questions,
            train=tuple(f"{WEB_QUESTIONS}{name}.json" for name in ("trainmodel", "val", "devtest")),
        ),
        splits=("train",),
        input="{question}",
        output=lambda row: tabs(row["answers"]),
    ),
]
