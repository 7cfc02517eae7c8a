"""Hate speech: ETHOS (Mollas et al. 2020), a white supremacy forum (de Gibert et al. 2018), tweets
(Davidson et al. 2017) and HateXplain (Mathew et al. 2021).
"""

from collections import Counter
from collections.abc import Iterator

from dataloader.building.raw_file import RawFile
from dataloader.building.recipe import Hub, Raw, Recipe, Row, classification
from dataloader.building.text import no_line_feeds, word

GITHUB = "https://raw.githubusercontent.com/"
ETHOS = f"{GITHUB}intelligence-csd-auth-gr/Ethos-Hate-Speech-Dataset/master/ethos/ethos_data/"
FORUM = "hate-speech-dataset-master/"
FORUM_LABELS = ("noHate", "hate", "idk/skip", "relation")
HATEXPLAIN = f"{GITHUB}punyajoy/HateXplain/master/Data/"
HATEXPLAIN_LABELS = ("hatespeech", "normal", "offensive")
TRUTH = ("false", "true")


def read_ethos(_: str, file: RawFile) -> Iterator[Row]:
    """Yields the comments with labels 0 or 1; the file has the share of annotators who said 1."""
    for row in file.records(";"):
        yield {"text": row.pop("comment"), **{name: int(float(share) >= 0.5) for name, share in row.items()}}


def ethos(label: str, words: tuple[str, str]) -> Recipe:
    return classification(
        f"ethos-{label}",
        Raw(read_ethos, train=f"{ETHOS}Ethos_Dataset_Multi_Label.csv"),
        Hub("iamollas/ethos", "multilabel"),
        splits=("train",),
        input=lambda row: row["text"].strip(),
        output=word(label, *words),
    )


def read_forum(_: str, archive: RawFile) -> Iterator[Row]:
    """Yields the sentences of the forum; each has a file of its own."""
    files = {file.member.removeprefix(FORUM): file for file in archive.members(FORUM)}
    for row in files["annotations_metadata.csv"].records():
        text = files[f"all_files/{row['file_id']}.txt"].text()
        yield {"text": text, "label": FORUM_LABELS.index(row["label"])}


def read_tweets(_: str, file: RawFile) -> Iterator[Row]:
    for row in file.records():
        yield row | {"class": int(row["class"])}


def read_hatexplain(split: str, posts: RawFile, divisions: RawFile) -> Iterator[Row]:
    """Yields the posts of a split. divisions: lists of the identifiers of the posts of each split."""
    by_id = posts.json()
    for identifier in divisions.json()["val" if split == "validation" else split]:
        post = by_id[identifier]
        labels = [HATEXPLAIN_LABELS.index(annotator["label"]) for annotator in post["annotators"]]
        yield {"post_tokens": post["post_tokens"], "annotators": {"label": labels}}


def has_majority(row: Row) -> bool:
    """Returns whether one label was given more often than every other."""
    counts = [count for _, count in Counter(row["annotators"]["label"]).most_common(2)]
    return len(counts) == 1 or counts[0] > counts[1]


def majority(row: Row) -> str:
    label, _ = Counter(row["annotators"]["label"]).most_common(1)[0]
    return HATEXPLAIN_LABELS[label]


RECIPES = [
    ethos("directed_vs_generalized", ("generalied", "directed")),  # the published files spell it so
    *(
        ethos(label, TRUTH)
        for label in ("disability", "gender", "national_origin", "race", "religion", "sexual_orientation")
    ),
    classification(
        "hate_speech18",
        Raw(read_forum, train="https://github.com/Vicomtech/hate-speech-dataset/archive/master.zip"),
        Hub("odegiber/hate_speech18"),
        splits=("train",),
        keep=lambda row: row["label"] <= 1,
        input="{text}",
        output=word("label", "noHate", "hate"),
    ),
    classification(
        "hate_speech_offensive",
        Raw(
            read_tweets,
            train=f"{GITHUB}t-davidson/hate-speech-and-offensive-language/master/data/labeled_data.csv",
        ),
        Hub("tdavidson/hate_speech_offensive"),
        splits=("train",),
        input=lambda row: no_line_feeds(row["tweet"]),
        output=word("class", "hate speech", "offensive language", "neither"),
    ),
    classification(
        "hatexplain",
        Raw(read_hatexplain, every=(f"{HATEXPLAIN}dataset.json", f"{HATEXPLAIN}post_id_divisions.json")),
        Hub("Hate-speech-CNERG/hatexplain"),
        keep=has_majority,
        input=lambda row: " ".join(row["post_tokens"]),
        output=majority,
    ),
]
