"""Every reader of raw files gives the expected lines on invented files in the form of the original ones."""

import gzip
import re
import zipfile

import pytest
from raw_labels import LABELS
from raw_mirror import Case, raw_sources, write_raw_files
from raw_passages import PASSAGES
from raw_questions import QUESTIONS
from raw_superglue import SUPERGLUE
from raw_texts import TEXTS
from raw_topics import TOPICS

from dataloader.building.downloads import Mirror
from dataloader.building.raw_file import RawFile
from dataloader.building.sources import Raw
from dataloader.recipes import PUBLISHED

TABLES = (LABELS, TOPICS, SUPERGLUE, QUESTIONS, PASSAGES, TEXTS)
CASES: dict[str, Case] = {task: case for table in TABLES for task, case in table.items()}


def family_and_reader(task: str, source: Raw) -> tuple[str, str]:
    """Returns "glue" for "glue-cola", or "kilt" for "kilt_nq", and the full name of the reader."""
    return re.split("-|(?<=kilt)_", task)[0], f"{source.read.__module__}.{source.read.__qualname__}"


def test_every_reader_of_every_family_of_tasks_has_raw_files_here():
    assert len(CASES) == sum(map(len, TABLES))
    readers = {
        task: {family_and_reader(task, source) for source in raw_sources(recipe)}
        for task, recipe in PUBLISHED.items()
    }
    tested = set().union(*(readers[task] for task in CASES))
    assert {task: missing for task, names in readers.items() if (missing := names - tested)} == {}


@pytest.mark.parametrize("task", CASES)
def test_the_raw_files_of_a_task_give_the_expected_lines(task, tmp_path):
    recipe, (files, lines) = PUBLISHED[task], CASES[task]
    sources = raw_sources(recipe)
    write_raw_files(tmp_path, sources, files)
    mirror = Mirror(tmp_path, accept_changed=True)
    assert lines.keys() == {split for source in sources for split in recipe.splits if has(source, split)}
    for source in sources:
        for split in lines:
            if has(source, split):
                rows = recipe.prepared(source.rows(split, mirror))
                assert ["\t".join(recipe.example(row)) for row in rows] == lines[split]


def has(source: Raw, split: str) -> bool:
    return bool(source.every) or split in source.splits


def test_compressed_files_are_uncompressed_in_and_out_of_archives(tmp_path):
    (tmp_path / "tea.txt.gz").write_bytes(gzip.compress(b"hot\ntea\n"))
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.write(tmp_path / "tea.txt.gz", "texts/tea.txt.gz")
    archive = RawFile(tmp_path / "data.zip")
    files = (RawFile(tmp_path / "tea.txt.gz"), RawFile(archive.path, "texts/tea.txt.gz"), *archive.members())
    assert [file.lines() for file in files] == [["hot", "tea"]] * 3
