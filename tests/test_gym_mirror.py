"""The published gym from a mirror of the raw files (ROUTING_MOE_GYM_RAW, by default ../shared/gym_raw)."""

import csv
import os
from collections import Counter
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet
from small_mirror import files_of

from dataloader.building.downloads import Mirror, Unavailable
from dataloader.building.sources import Hub, Raw
from dataloader.recipes import PUBLISHED
from routing_moe.cli.build_gym import main

RAW = Path(os.environ.get("ROUTING_MOE_GYM_RAW") or Path(__file__).resolve().parents[2] / "shared/gym_raw")
# Their train files are not in the mirror.
TEST_ONLY = {
    *(
        "acronym_identification",
        "ag_news",
        "aqua_rat",
        "break-QDMR",
        "break-QDMR-high-level",
        "e2e_nlg_cleaned",
    ),
    *("glue-qnli", "hatexplain", "qasc", "quail", "tab_fact", "tweet_eval-sentiment", "wiki_split"),
}
# Unpacking RACE and AESLC takes longer than all others together.
BUILT = [task for task in PUBLISHED if task not in ("race-high", "race-middle", "aeslc")]
SAMPLES = ("100", "87")  # of five: their draws differ only in the seed
# Data sets of various types of columns.
AS_PARQUET = ("climate_fever", "dream", "limit", "openbookqa", "superglue-multirc", "tweet_eval-irony")


@pytest.fixture(scope="module")
def mirror() -> Path:
    if not RAW.is_dir():
        pytest.skip(f"the raw files of CrossFit's gym are not here: {RAW} (ROUTING_MOE_GYM_RAW)")
    return RAW


@pytest.fixture(scope="module")
def gym(mirror, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "gym"
    paths = ["--output_dir", str(folder), "--mirror", str(mirror)]
    assert main([*paths, "--num_workers", "1", "--samples", *SAMPLES, "--tasks", *BUILT]) == 1
    return folder


@pytest.mark.slow
def test_the_tasks_whose_raw_files_are_there_have_the_published_sums(gym):
    with (gym / "gym_report.csv").open(encoding="utf-8") as file:
        rows = {row["task"]: row for row in csv.DictReader(file)}
    assert rows.keys() == set(BUILT)
    assert Counter(row["outcome"] for row in rows.values()) == {
        "verified": 70,
        "format only": 1,
        "unavailable": 83,
        "unavailable, the source is gone": 3,
    }
    assert {
        task for task, row in rows.items() if row["outcome"] == "unavailable" and row["test"] == "2/2"
    } == TEST_ONLY
    with (Path(__file__).parents[1] / "docs/results/gym_tasks.csv").open(encoding="utf-8") as file:
        measured = {row["task"]: row for row in csv.DictReader(file)}
    for task in BUILT:
        for part in ("train", "dev", "test", "source"):
            assert measured[task][part].replace("5/5", "2/2").replace("0/5", "0/2") == rows[task][part]
    # The copy of SQuAD's part of LAMA gives the published few-shot rows, but other test rows.
    assert [rows["lama-squad"][part] for part in ("train", "dev", "test")] == ["2/2", "2/2", "0/2"]


@pytest.mark.slow
def test_the_same_rows_as_parquet_files_of_the_hub_give_the_same_files(gym, mirror, tmp_path):
    for task in AS_PARQUET:
        write_as_parquet(task, Mirror(mirror), tmp_path / "hub")
    built = tmp_path / "gym"
    paths = ["--output_dir", str(built), "--mirror", str(tmp_path / "hub")]
    assert main([*paths, "--num_workers", "1", "--samples", *SAMPLES, "--tasks", *AS_PARQUET]) == 0
    raw, from_hub = files_of(gym), files_of(built)
    names = [name for name in from_hub if name.endswith(".tsv")]
    assert len(names) == 6 * len(AS_PARQUET)
    assert {name: from_hub[name] for name in names} == {name: raw[name] for name in names}


def write_as_parquet(task: str, files: Mirror, folder: Path) -> None:
    """Writes the rows of a task's raw files where a mirror has the hub's converted files."""
    recipe = PUBLISHED[task]
    raw = [source for source in recipe.sources if isinstance(source, Raw)]
    hub = next(source for source in recipe.sources if isinstance(source, Hub))
    top = folder / f"huggingface.co/datasets/{hub.repository}/resolve/refs/convert/parquet"
    for split in recipe.splits:
        rows = next(rows for source in raw if (rows := rows_of(source, split, files)))
        path = top / (hub.config or "default") / split / "0000.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def rows_of(source: Raw, split: str, files: Mirror) -> list[dict]:
    try:
        return list(source.rows(split, files))
    except Unavailable:
        return []
