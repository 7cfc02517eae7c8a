"""The sentences on the 160 tasks of CrossFit: complete, distinct, and of a length that says something."""

import json
from pathlib import Path

import dataloader
from dataloader import METRICS, Ontology

DESCRIPTIONS = json.loads(
    (Path(dataloader.__file__).parent / "descriptions.json").read_text(encoding="utf-8")
)


def test_exactly_the_tasks_with_a_metric_are_described_in_the_order_of_the_ontology():
    assert len(DESCRIPTIONS) == 160
    assert set(DESCRIPTIONS) == set(METRICS)
    assert list(DESCRIPTIONS) == list(Ontology.load().tasks)


def test_no_two_tasks_share_a_sentence():
    assert len({sentence.casefold() for sentence in DESCRIPTIONS.values()}) == len(DESCRIPTIONS)


def test_every_sentence_has_12_to_30_words():
    lengths = {task: len(sentence.split()) for task, sentence in DESCRIPTIONS.items()}
    assert {task: words for task, words in lengths.items() if not 12 <= words <= 30} == {}
