"""Multiple-choice questions without a passage: ARC (Clark et al. 2018), AQuA-RAT (Ling et al. 2017), CODAH
(Chen et al. 2019), CommonsenseQA (Talmor et al. 2019), MathQA (Amini et al. 2019), OpenBookQA (Mihaylov et
al. 2018), QASC (Khot et al. 2020), QuaRel (Tafjord et al. 2019) and QuaRTz (Tafjord et al. 2019)."""

from collections.abc import Iterator

from dataloader.building.raw_file import RawFile, json_lines, json_list, question_with_choices
from dataloader.building.recipe import Hub, Raw, Row, text_to_text
from dataloader.building.text import (
    choice,
    choice_by_letter,
    clean,
    labelled,
    labelled_answer,
    lettered,
    no_line_feeds,
)

AI2 = "https://s3-us-west-2.amazonaws.com/ai2-website/data/"
AQUA = "https://raw.githubusercontent.com/deepmind/AQuA/master/"
CODAH = "https://raw.githubusercontent.com/Websail-NU/CODAH/master/data/cv_split/fold_0/"
COMMONSENSE = "https://s3.amazonaws.com/commensenseqa/"
MATH = "https://math-qa.github.io/math-QA/data/MathQA.zip"
OPENBOOK = f"{AI2}OpenBookQA-V1-Sep2018.zip!OpenBookQA-V1-Sep2018/Data/Main/"
QASC = "http://data.allenai.org/downloads/qasc/qasc_dataset.tar.gz!QASC_Dataset/"
QUAREL = f"{AI2}quarel-dataset-v1-nov2018.zip!quarel-dataset-v1/quarel-v1-"
QUARTZ = f"{AI2}quartz-dataset-v1-aug2019.zip!quartz-dataset-v1-aug2019/"


def read_codah(_: str, file: RawFile) -> Iterator[Row]:
    for _category, prompt, *answers, index in file.table("\t"):
        yield {"question_propmt": prompt, "candidate_answers": answers, "correct_answer_idx": int(index)}


def math_options(row: Row) -> list[str]:
    """Returns the five options of "a ) 38 , b ) 27 , ..."; as published, a comma in one shifts the others."""
    parts = row["options"].split(",")
    return [parts[0][4:-1], parts[1][5:-1], parts[2][5:-1], parts[3][5:-1], parts[4][5:]]


def math_answer(row: Row) -> str:
    return math_options(row)["abcde".index(row["correct"])]


def quarel_answer(row: Row) -> str:
    """Returns the text behind the "(A)" or "(B)" of the question."""
    question = row["question"]
    first, second = question.index("(A)"), question.index("(B)")
    answer = question[first + 4 : second] if row["answer_index"] == 0 else question[second + 4 :]
    return answer.removesuffix("or ").strip()


def quartz(task: str, stem: str):
    return text_to_text(
        task,
        Raw(question_with_choices, train=f"{QUARTZ}train.jsonl", validation=f"{QUARTZ}dev.jsonl"),
        Hub("allenai/quartz"),
        input=lambda row: stem.format_map(row) + labelled(row["choices"]),
        output=labelled_answer,
    )


RECIPES = [
    text_to_text(
        "ai2_arc",
        Hub("allenai/ai2_arc", "ARC-Challenge"),  # the original archive has 680 MB
        input=lambda row: row["question"] + labelled(row["choices"]),
        output=labelled_answer,
    ),
    text_to_text(
        "aqua_rat",
        Raw(json_lines, train=f"{AQUA}train.json", validation=f"{AQUA}dev.json"),
        Hub("deepmind/aqua_rat", "raw"),
        input=lambda row: (
            no_line_feeds(row["question"]) + "".join(f" ({text[:2]} {text[2:]}" for text in row["options"])
        ),
        # The last option that starts with the right letter; "A)21" is an option.
        output=lambda row: [text for text in row["options"] if text[:1] == row["correct"]][-1][2:],
    ),
    text_to_text(
        "codah",
        Raw(read_codah, train=f"{CODAH}train.tsv", validation=f"{CODAH}dev.tsv"),
        Hub("jaredfern/codah", "fold_0"),
        input=lambda row: row["question_propmt"] + lettered(row["candidate_answers"]),
        output=lambda row: choice(row["candidate_answers"], row["correct_answer_idx"]),
    ),
    text_to_text(
        "commonsense_qa",
        Raw(
            question_with_choices,
            train=f"{COMMONSENSE}train_rand_split.jsonl",
            validation=f"{COMMONSENSE}dev_rand_split.jsonl",
        ),
        Hub("tau/commonsense_qa"),
        input=lambda row: clean(row["question"]) + labelled(row["choices"]),
        output=labelled_answer,
    ),
    text_to_text(
        "math_qa",
        Raw(json_list, train=f"{MATH}!train.json", validation=f"{MATH}!dev.json"),
        Hub("allenai/math_qa"),
        keep=lambda row: math_answer(row) != "",
        input=lambda row: row["Problem"] + lettered(math_options(row)),
        output=math_answer,
    ),
    text_to_text(
        "openbookqa",
        Raw(question_with_choices, train=f"{OPENBOOK}train.jsonl", validation=f"{OPENBOOK}dev.jsonl"),
        Hub("allenai/openbookqa", "main"),
        input=lambda row: row["question_stem"] + lettered(row["choices"]["text"]),
        output=lambda row: choice_by_letter(row["choices"]["text"], row["answerKey"]),
    ),
    text_to_text(
        "qasc",
        Raw(question_with_choices, train=f"{QASC}train.jsonl", validation=f"{QASC}dev.jsonl"),
        Hub("allenai/qasc"),
        input=lambda row: row["question"] + labelled(row["choices"]),
        output=labelled_answer,
    ),
    text_to_text(
        "quarel",
        Raw(json_lines, train=f"{QUAREL}train.jsonl", validation=f"{QUAREL}dev.jsonl"),
        Hub("community-datasets/quarel"),
        input="{question}",
        output=quarel_answer,
    ),
    quartz("quartz-no_knowledge", "{question}"),
    quartz("quartz-with_knowledge", "{question}{para}"),  # as published, without a space between
]
