"""Multiple-choice questions about a passage: Cosmos QA (Huang et al. 2019), DREAM (Sun et al. 2019), QuAIL
(Rogers et al. 2020), RACE (Lai et al. 2017), SciQ (Welbl et al. 2017), Social IQa (Sap et al. 2019) and WIQA
(Tandon et al. 2019)."""

from collections.abc import Iterable, Iterator
from xml.etree import ElementTree

import numpy as np

from dataloader.building.raw_file import RawFile, json_list, records
from dataloader.building.recipe import Hub, Raw, Row, text_to_text
from dataloader.building.text import (
    LETTERS,
    choice,
    choice_by_letter,
    columns,
    lettered,
    no_breaks,
    no_line_feeds,
)

COSMOS = "https://github.com/wilburOne/cosmosqa/raw/master/data/"
DREAM = "https://raw.githubusercontent.com/nlpdata/dream/master/data/"
QUAIL = (
    "https://raw.githubusercontent.com/text-machine-lab/quail/master/"
    "quail_v1.3/xml/randomized/quail_1.3_{}_randomized.xml"
)
RACE = "http://www.cs.cmu.edu/~glai1/data/race/RACE.tar.gz"
SCIQ = "https://s3-us-west-2.amazonaws.com/ai2-website/data/SciQ.zip!SciQ dataset-2 3/"
SOCIAL = (
    "https://storage.googleapis.com/ai2-mosaic/public/socialiqa/socialiqa-train-dev.zip!socialiqa-train-dev/"
)
WIQA = (
    "https://public-aristo-processes.s3-us-west-2.amazonaws.com/wiqa_dataset_no_explanation_v2/"
    "wiqa-dataset-v2-october-2019.zip"
)

cosmos_answers = columns("answer0", "answer1", "answer2", "answer3")
social_answers = columns("answerA", "answerB", "answerC")


def read_dream(_: str, file: RawFile) -> Iterator[Row]:
    for dialogue, questions, _id in file.json():
        for question in questions:
            yield question | {"dialogue": dialogue}


def read_quail(_: str, file: RawFile) -> Iterator[Row]:
    for text in ElementTree.fromstring(file.bytes()).iter("text"):
        context = text.find("text_body").text.strip()
        for question in text.find("questions").iter("q"):
            answers = list(question.iter("a"))
            yield {
                "context": context,
                "question": question.text.strip(),
                "answers": [answer.text.strip() for answer in answers],
                "correct_answer_id": [answer.get("correct") for answer in answers].index("True"),
            }


def race(level: str):
    def read(split: str, archive: RawFile) -> Iterator[Row]:
        folder = "dev" if split == "validation" else split
        for file in archive.members(f"RACE/{folder}/{level}/", ".txt"):
            passage = file.json()
            for question, options, answer in zip(
                passage["questions"], passage["options"], passage["answers"], strict=True
            ):
                yield {
                    "article": passage["article"],
                    "question": question,
                    "options": options,
                    "answer": answer,
                }

    def text(row: Row) -> str:
        options = lettered(map(no_breaks, row["options"]))
        return f"{no_breaks(row['question'])}{options} [SEP] {no_breaks(row['article'])}"

    return text_to_text(
        f"race-{level}",
        Raw(read, every=RACE),
        Hub("ehovy/race", level),
        input=text,
        output=lambda row: no_breaks(choice_by_letter(row["options"], row["answer"])),
        terms="non-commercial research only",
    )


def shuffle_answers(rows: Iterable[Row], generator: np.random.RandomState) -> Iterator[Row]:
    for row in rows:
        options = [row["distractor1"], row["distractor2"], row["distractor3"], row["correct_answer"]]
        generator.shuffle(options)
        yield row | {"options": options}


def read_social(_: str, questions: RawFile, labels: RawFile) -> Iterator[Row]:
    for row, label in zip(questions.json_lines(), labels.lines(), strict=True):
        yield row | {"label": label}


def read_wiqa(_: str, file: RawFile) -> Iterator[Row]:
    for question in (item["question"] for item in file.json_lines()):
        yield {
            "question_stem": question["stem"],
            "choices": {"text": [choice["text"] for choice in question["choices"]]},
            "question_para_step": question["para_steps"],
            "answer_label_as_choice": question["answer_label_as_choice"],
        }


def quail_input(row: Row) -> str:
    options = "".join(f"({letter}){text}" for letter, text in zip(LETTERS, row["answers"], strict=False))
    return f"{no_line_feeds(row['question'])}{options} [SEP] {no_line_feeds(row['context'])}"


def passage_last(row: Row, options: list[str], passage: str) -> str:
    return f"{no_line_feeds(row['question'])}{lettered(options)} [SEP] {no_line_feeds(row[passage])}"


RECIPES = [
    text_to_text(
        "cosmos_qa",
        Raw(records, train=f"{COSMOS}train.csv", validation=f"{COSMOS}valid.csv"),
        Hub("allenai/cosmos_qa"),
        input=lambda row: f"{row['question']} [SEP] {row['context']} [SEP] {lettered(cosmos_answers(row))}",
        output=lambda row: choice(cosmos_answers(row), row["label"]),
    ),
    text_to_text(
        "dream",
        Raw(read_dream, train=f"{DREAM}train.json", validation=f"{DREAM}dev.json"),
        Hub("dataset-org/dream"),
        input=lambda row: (
            f"{row['question']} [SEP] {' '.join(row['dialogue'])} [SEP] {lettered(row['choice'])}"
        ),
        output="{answer}",
        terms="non-commercial research only",
    ),
    text_to_text(
        "quail",
        Raw(read_quail, train=QUAIL.format("train"), validation=QUAIL.format("dev")),
        Hub("textmachinelab/quail"),
        input=quail_input,
        output=lambda row: choice(row["answers"], row["correct_answer_id"]),
        terms="CC BY-NC-SA 4.0: non-commercial use",
    ),
    race("high"),
    race("middle"),
    text_to_text(
        "sciq",
        Raw(json_list, train=f"{SCIQ}train.json", validation=f"{SCIQ}valid.json"),
        Hub("allenai/sciq"),
        keep=lambda row: row["support"] != "",
        prepare=shuffle_answers,
        input=lambda row: passage_last(row, row["options"], "support"),
        output="{correct_answer}",
        terms="CC BY-NC 3.0: non-commercial use",
    ),
    text_to_text(
        "social_i_qa",
        Raw(
            read_social,
            train=(f"{SOCIAL}train.jsonl", f"{SOCIAL}train-labels.lst"),
            validation=(f"{SOCIAL}dev.jsonl", f"{SOCIAL}dev-labels.lst"),
        ),
        Hub("allenai/social_i_qa"),
        input=lambda row: passage_last(row, social_answers(row), "context"),
        output=lambda row: choice(social_answers(row), int(row["label"]) - 1),
    ),
    text_to_text(
        "wiqa",
        Raw(read_wiqa, train=f"{WIQA}!train.jsonl", validation=f"{WIQA}!dev.jsonl"),
        Hub("allenai/wiqa"),
        input=lambda row: (
            no_line_feeds(row["question_stem"])
            + lettered(row["choices"]["text"])
            + " [SEP] "
            + " ".join(row["question_para_step"])
        ),
        output=lambda row: choice_by_letter(row["choices"]["text"], row["answer_label_as_choice"]),
    ),
]
