"""Questions without a passage: FreebaseQA (Jiang et al. 2019), Jeopardy!, ProtoQA (Boratko et al. 2020),
SearchQA (Dunn et al. 2017) and WebQuestions (Berant et al. 2013); KILT (Petroni et al. 2021); facts as
sentences with a gap: LAMA (Petroni et al. 2019).
"""

from collections.abc import Callable, Iterator

from dataloader.building.raw_file import RawFile, json_lines, json_list
from dataloader.building.recipe import Hub, Raw, Recipe, Row, one_split, text_to_text
from dataloader.building.text import clean, no_line_feeds, tabs

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


KILT = "http://dl.fbaipublicfiles.com/KILT/"


def read_kilt(_: str, file: RawFile) -> Iterator[Row]:
    for item in file.json_lines():
        output = [{"answer": answer.get("answer", "")} for answer in item["output"]]
        yield {"input": item["input"], "output": output}


def kilt_answers(row: Row) -> list[str]:
    """Returns all answers; parquet files have them as a list of structures, or as a structure of lists."""
    output = row["output"]
    return output["answer"] if isinstance(output, dict) else [item["answer"] for item in output]


def distinct_kilt_answers(row: Row) -> list[str]:
    """Returns the answers that are not empty, each once."""
    return list(dict.fromkeys(filter(None, kilt_answers(row))))


def kilt(
    name: str,
    config: str,
    output: Callable[[Row], list[str]] = kilt_answers,
    shorten: Callable[[str], str] = no_line_feeds,
) -> Recipe:
    sources = (
        Raw(read_kilt, train=f"{KILT}{config}-train-kilt.jsonl", validation=f"{KILT}{config}-dev-kilt.jsonl"),
        Hub("facebook/kilt_tasks", config),
    )
    return text_to_text(
        f"kilt_{name}",
        *(sources[1:] if config == "trex" else sources),  # its original files have 1.7 GB
        input=lambda row: shorten(row["input"]),
        output=lambda row: tabs(output(row)),
    )


LAMA = "https://dl.fbaipublicfiles.com/LAMA/negated_data.tar.gz!"
LAMA_TEMPLATES = {
    "date_of_birth": "[X] (born [Y]).",
    "place_of_birth": "[X] was born in [Y] .",
    "place_of_death": "[X] died in [Y] .",
}
GOOGLE_RE = tuple(f"{LAMA}Google_RE/{relation}_test.jsonl" for relation in LAMA_TEMPLATES)


def read_lama(_: str, *files: RawFile) -> Iterator[Row]:
    """Yields a row for each masked sentence; the template is that of the relation which names the file."""
    for file in files:
        template = LAMA_TEMPLATES.get(file.name.removesuffix("_test.jsonl"), "")
        for fact in file.json_lines():
            for sentence in fact["masked_sentences"]:
                yield {
                    "masked_sentence": sentence,
                    "template": template,
                    "sub_label": fact.get("sub_label", ""),
                    "obj_label": fact["obj_label"],
                }


def filled_template(row: Row) -> str:
    return row["template"].replace("[X]", row["sub_label"]).replace("[Y]", "[MASK]")


def lama(config: str, *sources: Raw, text="{masked_sentence}", **fields) -> Recipe:
    return text_to_text(
        f"lama-{config}",
        Hub("facebook/lama", config),
        *sources,
        splits=("train",),
        input=text,
        output="{obj_label}",
        terms="CC BY-NC 4.0: non-commercial use",
        **fields,
    )


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
    kilt("ay2", "aidayago2"),
    kilt("fever", "fever", lambda row: list(dict.fromkeys(kilt_answers(row))), clean),
    kilt("hotpotqa", "hotpotqa"),
    kilt("nq", "nq", distinct_kilt_answers),
    kilt("trex", "trex", distinct_kilt_answers),
    kilt("wow", "wow"),
    kilt("zsre", "structured_zeroshot", distinct_kilt_answers),
    lama("conceptnet"),
    lama("google_re", Raw(read_lama, train=GOOGLE_RE), text=filled_template),
    lama("squad", Raw(read_lama, train=f"{LAMA}Squad/test.jsonl")),
    lama(
        "trex",
        text=filled_template,
        split_rule=one_split(lambda n: slice(int(0.8 * n)), lambda n: slice(int(0.99 * n), None)),
    ),
]
