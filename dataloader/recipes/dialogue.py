"""Long answers and replies: ELI5 (Fan et al. 2019) and EmpatheticDialogues (Rashkin et al. 2019)."""

from collections.abc import Iterable, Iterator

import numpy as np

from dataloader.building.raw_file import records
from dataloader.building.recipe import Hub, Raw, Recipe, Row, test_share, text_to_text
from dataloader.building.text import clean, no_breaks, tabs

EMPATHETIC = (
    "https://dl.fbaipublicfiles.com/parlai/empatheticdialogues/"
    "empatheticdialogues.tar.gz!empatheticdialogues/"
)


def eli5(subreddit: str) -> Recipe:
    return text_to_text(
        f"eli5-{subreddit}",
        Hub("defunct-datasets/eli5"),
        splits=(f"train_{subreddit}", f"validation_{subreddit}"),
        cut=test_share(0.1),
        input=lambda row: clean(f"{row['title']} [SEP] {row['selftext']}"),
        output=lambda row: tabs(map(clean, row["answers"]["text"])),
        gone=True,
    )


def merge_replies(rows: Iterable[Row], _: np.random.RandomState) -> Iterator[Row]:
    """Yields a row for each prompt and emotion, with the utterances of all its dialogues."""
    replies: dict[str, list[str]] = {}
    for row in rows:
        prompt, utterance = (row[column].replace("_comma_", ",") for column in ("prompt", "utterance"))
        replies.setdefault(f"{prompt} [SEP] {row['context']}", []).append(no_breaks(utterance))
    for prompt, utterances in replies.items():
        yield {"prompt": prompt, "replies": utterances}


RECIPES = [
    eli5("askh"),
    eli5("asks"),
    eli5("eli5"),
    text_to_text(
        "empathetic_dialogues",
        Raw(records, train=f"{EMPATHETIC}train.csv", validation=f"{EMPATHETIC}valid.csv"),
        Hub("facebook/empathetic_dialogues"),
        keep=lambda row: "hit:" not in row["utterance"],
        prepare=merge_replies,
        cut=test_share(0.2),
        input="{prompt}",
        output=lambda row: tabs(row["replies"]),
        terms="CC BY-NC 4.0: non-commercial use",
    ),
]
