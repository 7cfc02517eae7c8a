"""Completions of sentences: the pronouns of Rahman & Ng (2012), HellaSwag (Zellers et al. 2019), NumerSense
(Lin et al. 2020), SWAG (Zellers et al. 2018) and WinoGrande (Sakaguchi et al. 2020)."""

from collections.abc import Iterator

from dataloader.building.raw_file import RawFile, cells, json_lines, records
from dataloader.building.recipe import Hub, Raw, Row, text_to_text
from dataloader.building.text import choice, columns, lettered

HELLASWAG = "https://github.com/rowanz/hellaswag/raw/master/data/hellaswag_"
NUMER_SENSE = "https://raw.githubusercontent.com/INK-USC/NumerSense/main/data/train.masked.tsv"
PRONOUNS = "http://www.hlt.utdallas.edu/~vince/data/emnlp12/"
SWAG = "https://raw.githubusercontent.com/rowanz/swagaf/master/data/"
WINOGRANDE = "https://storage.googleapis.com/ai2-mosaic/public/winogrande/winogrande_1.1.zip!winogrande_1.1/"

swag_endings = columns("ending0", "ending1", "ending2", "ending3")


def read_pronouns(_: str, file: RawFile) -> Iterator[Row]:
    """Yields blocks of five lines: sentence, pronoun, candidates, right candidate, empty line."""
    lines = [line.strip() for line in file.lines()]
    for sentence, pronoun, names, answer in zip(
        lines[::5], lines[1::5], lines[2::5], lines[3::5], strict=False
    ):
        if not sentence:
            return
        candidates = [name.strip() for name in names.split(",")]
        yield {
            "sentence": sentence,
            "pronoun": pronoun,
            "candidates": candidates,
            "label": candidates.index(answer),
        }


RECIPES = [
    text_to_text(
        "definite_pronoun_resolution",
        Raw(read_pronouns, train=f"{PRONOUNS}train.c.txt", test=f"{PRONOUNS}test.c.txt"),
        Hub("community-datasets/definite_pronoun_resolution"),
        splits=("train", "test"),
        input="{sentence} [SEP] {pronoun} [SEP] (A) {candidates[0]} (B) {candidates[1]}",
        output=lambda row: choice(row["candidates"], row["label"]),
    ),
    text_to_text(
        "hellaswag",
        Raw(json_lines, train=f"{HELLASWAG}train.jsonl", validation=f"{HELLASWAG}val.jsonl"),
        Hub("Rowan/hellaswag"),
        input=lambda row: row["ctx"] + lettered(row["endings"]),
        output=lambda row: choice(row["endings"], row["label"]),
    ),
    text_to_text(
        "numer_sense",
        Raw(cells("\t", sentence=0, target=1), train=NUMER_SENSE),
        Hub("INK-USC/numer_sense"),
        splits=("train",),
        input=lambda row: row["sentence"].replace("<mask>", "[MASK]"),
        output="{target}",
    ),
    text_to_text(
        "swag",
        Raw(records, train=f"{SWAG}train.csv", validation=f"{SWAG}val.csv"),
        Hub("allenai/swag", "regular"),
        input=lambda row: row["startphrase"] + lettered(swag_endings(row)),
        output=lambda row: choice(swag_endings(row), row["label"]),
    ),
    text_to_text(
        "wino_grande",
        Raw(json_lines, train=f"{WINOGRANDE}train_xl.jsonl", validation=f"{WINOGRANDE}dev.jsonl"),
        Hub("allenai/winogrande", "winogrande_xl"),
        keep=lambda row: str(row["answer"]) in ("1", "2"),
        input="{sentence} (A) {option1} (B) {option2}",
        output=lambda row: row[f"option{row['answer']}"],
    ),
]
