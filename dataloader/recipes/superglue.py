"""SuperGLUE (Wang et al. 2019): inference, causes, coreference, word senses and reading comprehension."""

from collections.abc import Iterable, Iterator

import numpy as np

from dataloader.building.raw_file import RawFile, with_label_indices
from dataloader.building.recipe import Hub, Raw, Row, classification, text_to_text
from dataloader.building.text import lettered, no_breaks, no_line_feeds, premise_and_hypothesis, word

ARCHIVES = "https://dl.fbaipublicfiles.com/glue/superglue/data/v2/"
ENTAILMENT = ("entailment", "not_entailment")
THREE_WAY = ("entailment", "contradiction", "neutral")
RESEARCH = "research use only"


def superglue(config: str, read, archive: str) -> tuple:
    """Returns the sources of a task: the original archive and the hub."""
    folder = f"{ARCHIVES}{archive}.zip!{archive}"
    return (
        Raw(read, train=f"{folder}/train.jsonl", validation=f"{folder}/val.jsonl"),
        Hub("aps/super_glue", config),
    )


def read_labelled(*labels: str):
    """Returns the reader of JSON lines whose field "label" has these words, a truth value or an index."""

    def read(_: str, file: RawFile) -> Iterator[Row]:
        return with_label_indices(file.json_lines(), labels)

    return read


def read_multirc(_: str, file: RawFile) -> Iterator[Row]:
    """Yields a row for each answer of each question."""
    for row in file.json_lines():
        for question in row["passage"]["questions"]:
            for answer in question["answers"]:
                yield {
                    "paragraph": row["passage"]["text"],
                    "question": question["question"],
                    "answer": answer["text"],
                    "label": int(answer["label"]),
                    "idx": {"question": question["idx"]},
                }


def read_record(_: str, file: RawFile) -> Iterator[Row]:
    """Yields a row for each query of each passage, with its different answers in alphabetical order."""
    for row in file.json_lines():
        for query in row["qas"]:
            answers = sorted({answer["text"] for answer in query["answers"]})
            yield {"passage": row["passage"]["text"], "query": query["query"], "answers": answers}


def read_wsc(_: str, file: RawFile) -> Iterator[Row]:
    """Yields rows as in the configuration wsc.fixed: spans are written as in the text."""
    for row in file.json_lines():
        text, target = row["text"], row["target"]
        spans = {
            f"{span}_text": fixed_span(text, target[f"{span}_text"], target[f"{span}_index"])
            for span in ("span1", "span2")
        }
        yield {"text": text, **spans, "label": int(row["label"])}


def fixed_span(text: str, span: str, index: int) -> str:
    """Returns the span with the case of the word at `index`, and without final full stops or line breaks."""
    if span in text or span in ("Kamenev and Zinoviev", "Kamenev, Zinoviev, and Stalin"):
        return span
    first = span[0].lower() if text.split()[index][0].islower() else span[0].upper()
    return no_line_feeds((first + span[1:]).rstrip("."))


def merge_answers(rows: Iterable[Row], _: np.random.RandomState) -> Iterable[Row]:
    """Returns one row for each question, with all its answers and the correct ones."""
    questions: dict[int, Row] = {}
    for row in rows:
        question = questions.setdefault(row["idx"]["question"], {**row, "answers": [], "correct": []})
        question["answers"].append(row["answer"])
        if row["label"] == 1:
            question["correct"].append(row["answer"])
    return questions.values()


def multirc_input(row: Row) -> str:
    options = lettered(map(no_breaks, row["answers"]))
    return f"question: {no_breaks(row['question'])}{options} context: {no_breaks(row['paragraph'])}"


RECIPES = [
    classification(
        "superglue-cb",
        *superglue("cb", read_labelled(*THREE_WAY), "CB"),
        input="premise: {premise} [SEP] hypothesis: {hypothesis}",
        output=word("label", *THREE_WAY),
        terms=RESEARCH,
    ),
    text_to_text(
        "superglue-copa",
        *superglue("copa", read_labelled(), "COPA"),
        input="{premise} (A) {choice1} (B) {choice2}",
        output=lambda row: row[f"choice{row['label'] + 1}"],
    ),
    text_to_text(
        "superglue-multirc",
        *superglue("multirc", read_multirc, "MultiRC"),
        prepare=merge_answers,
        input=multirc_input,
        output=lambda row: " [SEP] ".join(row["correct"]) if row["correct"] else "NO ANSWER!",
        terms=RESEARCH,
    ),
    text_to_text(
        "superglue-record",
        *superglue("record", read_record, "ReCoRD"),
        input=lambda row: f"question: {row['query']} context: {no_line_feeds(row['passage'])}",
        output="{answers[0]}",
    ),
    classification(
        "superglue-rte",
        *superglue("rte", read_labelled(*ENTAILMENT), "RTE"),
        input=premise_and_hypothesis,
        output=word("label", *ENTAILMENT),
        terms=RESEARCH,
    ),
    classification(
        "superglue-wic",
        *superglue("wic", read_labelled(), "WiC"),
        input="word: {word} [SEP] sentence 1: {sentence1} [SEP] sentence 2: {sentence2}",
        output=word("label", "false", "true"),
        terms="CC BY-NC 4.0: non-commercial use",
    ),
    classification(
        "superglue-wsc",
        *superglue("wsc.fixed", read_wsc, "WSC"),
        input="text: {text} [SEP] span1_text{span1_text} [SEP] span2_text: {span2_text}",
        output=word("label", "false", "true"),
    ),
]
