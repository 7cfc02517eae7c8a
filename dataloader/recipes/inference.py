"""Inference: ANLI (Nie et al. 2020), aNLI in ART (Bhagavatula et al. 2020), SciTail (Khot et al. 2018), SICK
(Marelli et al. 2014) and PIQA (Bisk et al. 2020); fact checking: Climate-FEVER (Diggelmann et al. 2020),
PUBHEALTH (Kotonya and Toni 2020), LIAR (Wang 2017) and TabFact (Chen et al. 2020).
"""

from collections.abc import Iterator

from dataloader.building.raw_file import RawFile, cells
from dataloader.building.recipe import Hub, Raw, Row, classification
from dataloader.building.text import no_breaks, premise_and_hypothesis, word

SICK = "https://zenodo.org/record/2787612/files/SICK.zip?download=1!SICK.txt"
LABELS = ("entailment", "neutral", "contradiction")


def read_sick(split: str, file: RawFile) -> Iterator[Row]:
    """Yields the pairs of a split, which the last column names."""
    wanted = {"train": "TRAIN", "validation": "TRIAL"}[split]
    for line in file.lines():
        fields = [field.strip() for field in line.split("\t")]
        if fields[-1] == wanted:
            label = LABELS.index(fields[3].lower())
            yield {"sentence_A": fields[1], "sentence_B": fields[2], "label": label}


CLIMATE = "https://github.com/tdiggelm/climate-fever-dataset/archive/1.0.1.zip"
CLIMATE_LABELS = ("SUPPORTS", "REFUTES", "NOT_ENOUGH_INFO", "DISPUTED")
LIAR = "https://www.cs.ucsb.edu/~william/data/liar_dataset.zip!"
LIAR_LABELS = ("false", "half-true", "mostly-true", "true", "barely-true", "pants-fire")
TABLES_COMMIT = "948b5560e2f7f8c9139bd91c7f093346a2bb56a8"


def read_climate(_: str, file: RawFile) -> Iterator[Row]:
    for row in file.json_lines():
        yield row | {"claim_label": CLIMATE_LABELS.index(row["claim_label"])}


read_liar = cells("\t", LIAR_LABELS, quoted=False, label=1, statement=2, speaker=4, context=13)


def read_tables(split: str, archive: RawFile) -> Iterator[Row]:
    """Yields a row for each statement about each table; each table has a file of its own."""
    folder = f"Table-Fact-Checking-{TABLES_COMMIT}"
    tables = {file.name: file.text() for file in archive.members(f"{folder}/data/all_csv/")}
    (examples,) = archive.members(f"{folder}/tokenized_data/{split.removesuffix('idation')}_examples.json")
    for table, (statements, labels, caption) in examples.json().items():
        for statement, label in zip(statements, labels, strict=True):
            yield {
                "statement": statement,
                "label": label,
                "table_caption": caption,
                "table_text": tables[table],
            }


def statement_about_table(row: Row) -> str:
    table = row["table_text"].replace("\n", " [n] ")
    caption = row["table_caption"]
    return f"statement: {row['statement']} [SEP] table_caption: {caption} [SEP] table_text: {table}"


RECIPES = [
    classification(
        "anli",
        Hub("facebook/anli"),
        splits=("train_r1", "dev_r1"),
        input=premise_and_hypothesis,
        output=word("label", *LABELS),
        terms="CC BY-NC 4.0: non-commercial use",
    ),
    classification(
        "art",
        Hub("allenai/art", "anli"),
        input="observation 1: {observation_1} [SEP] observation 2: {observation_2} "
        "[SEP] hypothesis 1: {hypothesis_1} [SEP] hypothesis 2: {hypothesis_2}",
        output="hypothesis {label}",
    ),
    classification(
        "piqa",
        Hub("ybisk/piqa"),
        input="goal: {goal} [SEP] solution 1{sol1} [SEP] solution 2{sol2}",
        output="{label}",
    ),
    classification(
        "scitail",
        Hub("allenai/scitail", "snli_format"),
        input="sentence 1: {sentence1} [SEP] sentence 2: {sentence2}",
        output="{gold_label}",
    ),
    classification(
        "sick",
        Raw(read_sick, every=SICK),
        Hub("RobZamp/sick"),
        input="sentence 1: {sentence_A} [SEP] sentence 2: {sentence_B}",
        output=word("label", *LABELS),
        terms="CC BY-NC-SA 3.0: non-commercial use",
    ),
    classification(
        "climate_fever",
        Raw(read_climate, test=f"{CLIMATE}!climate-fever-dataset-1.0.1/dataset/climate-fever.jsonl"),
        Hub("tdiggelm/climate_fever"),
        splits=("test",),
        input="{claim}",
        output=word("claim_label", "Supports", "Refutes", "Not enough info", "Disputed"),
    ),
    classification(
        "health_fact",
        Hub("ImperialCollegeLondon/health_fact"),
        keep=lambda row: row["label"] >= 0,
        input=lambda row: no_breaks(row["claim"].strip()),
        output=word("label", "false", "mixture", "true", "unproven"),
    ),
    classification(
        "liar",
        Raw(read_liar, train=f"{LIAR}train.tsv", validation=f"{LIAR}valid.tsv"),
        Hub("ucsbnlp/liar"),
        input=lambda row: no_breaks(
            "statement: {statement} [SEP] speaker: {speaker} [SEP] context: {context}".format_map(row)
        ),
        output=word("label", *LIAR_LABELS),
    ),
    classification(
        "tab_fact",
        Hub("wenhu/tab_fact", "tab_fact"),
        Raw(
            read_tables, every=f"https://github.com/wenhuchen/Table-Fact-Checking/archive/{TABLES_COMMIT}.zip"
        ),
        input=statement_about_table,
        output=word("label", "refuted", "entailed"),
    ),
]
