"""The descriptions of the 160 CrossFit tasks: complete, distinct, and of 12 to 30 words."""

import json
from pathlib import Path

import dataloader
from dataloader import METRICS, Ontology

DESCRIPTIONS = json.loads(
    (Path(dataloader.__file__).parent / "descriptions.json").read_text(encoding="utf-8")
)


def test_descriptions_cover_all_tasks_with_a_metric_in_the_order_of_the_ontology():
    assert len(DESCRIPTIONS) == 160
    assert set(DESCRIPTIONS) == set(METRICS)
    assert list(DESCRIPTIONS) == list(Ontology.load().tasks)
    assert len({sentence.casefold() for sentence in DESCRIPTIONS.values()}) == 160


def test_every_description_has_12_to_30_words():
    lengths = {task: len(sentence.split()) for task, sentence in DESCRIPTIONS.items()}
    assert {task: words for task, words in lengths.items() if not 12 <= words <= 30} == {}
