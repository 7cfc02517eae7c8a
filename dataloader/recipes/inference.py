"""Inference: ANLI (Nie et al. 2020), aNLI in ART (Bhagavatula et al. 2020), SciTail (Khot et al. 2018), SICK
(Marelli et al. 2014) and PIQA (Bisk et al. 2020).
"""

from collections.abc import Iterator

from dataloader.building.raw_file import RawFile, json_lines, labelled_json_lines
from dataloader.building.recipe import Hub, Raw, Row, classification
from dataloader.building.text import no_line_feeds, word

ANLI = "https://dl.fbaipublicfiles.com/anli/anli_v0.1.zip!anli_v0.1/R1/"
AI2 = "https://storage.googleapis.com/ai2-mosaic/public/"
ART = f"{AI2}alphanli/alphanli-train-dev.zip!"
PIQA = f"{AI2}physicaliqa/physicaliqa-train-dev.zip!physicaliqa-train-dev/"
SCITAIL = "http://data.allenai.org.s3.amazonaws.com/downloads/SciTailV1.1.zip!SciTailV1.1/snli_format/"
SICK = "https://zenodo.org/record/2787612/files/SICK.zip?download=1!SICK.txt"
LABELS = ("entailment", "neutral", "contradiction")


def with_labels(folder: str) -> dict[str, tuple[str, str]]:
    """Returns the files of both splits: JSON lines, and labels."""
    names = {"train": "train", "validation": "dev"}
    return {split: (f"{folder}{name}.jsonl", f"{folder}{name}-labels.lst") for split, name in names.items()}


def read_anli(_: str, file: RawFile) -> Iterator[Row]:
    for row in file.json_lines():
        yield {
            "premise": row["context"],
            "hypothesis": row["hypothesis"],
            "label": "enc".index(row["label"]),
        }


def anli_input(row: Row) -> str:
    return f"premise: {no_line_feeds(row['premise'])} [SEP] hypothesis: {no_line_feeds(row['hypothesis'])}"


def read_art(split: str, file: RawFile, labels: RawFile) -> Iterator[Row]:
    names = {"obs1": "observation_1", "obs2": "observation_2", "hyp1": "hypothesis_1", "hyp2": "hypothesis_2"}
    for row in labelled_json_lines(split, file, labels):
        yield {names.get(key, key): value for key, value in row.items()}


def read_sick(split: str, file: RawFile) -> Iterator[Row]:
    """Yields the pairs of a split, which the last column names."""
    wanted = {"train": "TRAIN", "validation": "TRIAL"}[split]
    for line in file.lines():
        fields = [field.strip() for field in line.split("\t")]
        if fields[-1] == wanted:
            label = LABELS.index(fields[3].lower())
            yield {"sentence_A": fields[1], "sentence_B": fields[2], "label": label}


RECIPES = [
    classification(
        "anli",
        Hub("facebook/anli"),
        Raw(read_anli, train_r1=f"{ANLI}train.jsonl", dev_r1=f"{ANLI}dev.jsonl"),
        splits=("train_r1", "dev_r1"),
        input=anli_input,
        output=word("label", *LABELS),
        terms="CC BY-NC 4.0: non-commercial use",
    ),
    classification(
        "art",
        Hub("allenai/art", "anli"),
        Raw(read_art, **with_labels(ART)),
        input="observation 1: {observation_1} [SEP] observation 2: {observation_2} "
        "[SEP] hypothesis 1: {hypothesis_1} [SEP] hypothesis 2: {hypothesis_2}",
        output="hypothesis {label}",
    ),
    classification(
        "piqa",
        Hub("ybisk/piqa"),
        Raw(labelled_json_lines, **with_labels(PIQA)),
        input="goal: {goal} [SEP] solution 1{sol1} [SEP] solution 2{sol2}",
        output="{label}",
    ),
    classification(
        "scitail",
        Hub("allenai/scitail", "snli_format"),
        Raw(
            json_lines,
            train=f"{SCITAIL}scitail_1.0_train.txt",
            validation=f"{SCITAIL}scitail_1.0_dev.txt",
        ),
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
]
