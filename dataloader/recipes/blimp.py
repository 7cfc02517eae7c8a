"""Pairs of sentences: BLiMP (Warstadt et al. 2020) and CrowS-Pairs (Nangia et al. 2020)."""

from collections.abc import Iterable, Iterator

import numpy as np

from dataloader.building.raw_file import json_lines, records
from dataloader.building.recipe import Hub, Raw, Row, classification

BLIMP = "https://raw.githubusercontent.com/alexwarstadt/blimp/master/data/"
CROWS = "https://raw.githubusercontent.com/nyu-mll/crows-pairs/master/data/crows_pairs_anonymized.csv"
PARADIGMS = (
    "anaphor_gender_agreement",
    "anaphor_number_agreement",
    "determiner_noun_agreement_with_adj_irregular_1",
    "ellipsis_n_bar_1",
    "ellipsis_n_bar_2",
    "existential_there_quantifiers_1",
    "irregular_past_participle_adjectives",
    "sentential_negation_npi_licensor_present",
    "sentential_negation_npi_scope",
    "wh_questions_object_gap",
)


def in_random_order(right: str, wrong: str):
    """Returns the preparation that draws which of two columns is sentence 1."""

    def prepare(rows: Iterable[Row], generator: np.random.RandomState) -> Iterator[Row]:
        for row in rows:
            if generator.random_sample() > 0.5:
                yield {"first": row[right], "second": row[wrong], "answer": "sentence 1"}
            else:
                yield {"first": row[wrong], "second": row[right], "answer": "sentence 2"}

    return prepare


def pair(task: str, *sources, right: str, wrong: str, split: str):
    return classification(
        task,
        *sources,
        splits=(split,),
        prepare=in_random_order(right, wrong),
        input="sentence 1: {first} [SEP] sentence 2: {second}",
        output="{answer}",
    )


RECIPES = [
    *(
        pair(
            f"blimp-{paradigm}",
            Hub("nyu-mll/blimp", paradigm),
            Raw(json_lines, train=f"{BLIMP}{paradigm}.jsonl"),
            right="sentence_good",
            wrong="sentence_bad",
            split="train",
        )
        for paradigm in PARADIGMS
    ),
    pair(
        "crows_pairs",
        Raw(records, test=CROWS),
        Hub("nyu-mll/crows_pairs"),
        right="sent_more",
        wrong="sent_less",
        split="test",
    ),
]
