"""The published gym from a mirror of the raw files (ROUTING_MOE_GYM_RAW, by default ../shared/gym_raw).

Some files of the mirror are copies that others than the authors have published, or members of an archive.
manifest.csv names the URL, and the member, that each stands for; `mirror` lays them out so.
"""

import ast
import csv
import hashlib
import json
import os
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from dataloader.building.downloads import Mirror, Unavailable, path_of
from dataloader.building.raw_file import RawFile
from dataloader.building.recipe import Raw
from dataloader.building.report import published_sums
from dataloader.building.task_folder import content_of
from dataloader.recipes import PUBLISHED
from routing_moe.cli.build_gym import main

RAW = Path(os.environ.get("ROUTING_MOE_GYM_RAW") or Path(__file__).resolve().parents[2] / "shared/gym_raw")
# Unpacking RACE and AESLC takes longer than all others together; the others are read as small ones.
LARGE = ("race-high", "race-middle", "aeslc", "glue-sst2", "hate_speech18")
LARGE += ("superglue-multirc", "tab_fact", "tweet_eval-emoji", "tweet_eval-hate", "tweet_eval-offensive")
BUILT = [task for task in PUBLISHED if task not in LARGE]
SAMPLE = "100"  # of five: their draws differ only in the seed
# Data sets of various types of columns.
TEST_ONLY = "test file verified, few-shot rows not in the mirror"


def measured() -> dict[str, dict[str, str]]:
    with (Path(__file__).parents[1] / "docs/results/gym_tasks.csv").open(encoding="utf-8") as file:
        return {row["task"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def mirror(tmp_path_factory) -> Path:
    if not RAW.is_dir():
        pytest.skip(f"the raw files of CrossFit's gym are not here: {RAW} (ROUTING_MOE_GYM_RAW)")
    folder = tmp_path_factory.mktemp("originals")
    shutil.copytree(RAW, folder, dirs_exist_ok=True, copy_function=os.symlink)
    with (RAW / "manifest.csv").open(encoding="utf-8") as file:
        rows = {row["path"]: row for row in csv.DictReader(file) if row["for_url"]}
    for row in rows.values():
        original = path_of(row["for_url"], folder)
        original.parent.mkdir(parents=True, exist_ok=True)
        member, content = in_original_form(row, (RAW / row["path"]).read_bytes())
        if member:
            with zipfile.ZipFile(original, "a") as archive:
                archive.writestr(member, content)
        elif not original.exists():
            original.write_bytes(content)
    return folder


def in_original_form(row: dict[str, str], content: bytes) -> tuple[str, bytes]:
    """Returns (member, content) of a copy as its authors publish them; three copies have another format."""
    member, file = row["member"], RawFile(RAW / row["path"], content=content)
    if row["task"] == "sms_spam":  # the copy has a line of column names
        return member, content.partition(b"\n")[2]
    if row["task"] == "hatexplain" and file.name.startswith("df_val"):
        names = ("hatespeech", "normal", "offensive")
        divisions = RAW / "raw.githubusercontent.com/punyajoy/HateXplain/master/Data/post_id_divisions.json"
        posts = {}
        for identifier, post in zip(RawFile(divisions).json()["val"], file.records(), strict=True):
            labels = [{"label": names[label]} for label in ast.literal_eval(post["annotators"])["label"]]
            posts[identifier] = {"post_tokens": ast.literal_eval(post["post_tokens"]), "annotators": labels}
        return member, json.dumps(posts).encode()
    if row["task"] == "openbookqa":  # a table with the choices in one column: "(A) sand (B) water ..."
        lines = []
        for question in file.records("\t", quoted=False):
            rest, choices = question["Choices"], []
            for letter in "DCBA":
                rest, _, text = rest.rpartition(f"({letter}) ")
                choices.insert(0, {"label": letter, "text": text.strip()})
            stem = {"stem": question["Question Stem"], "choices": choices}
            lines.append(json.dumps({"question": stem, "answerKey": question["Answer Key"]}))
        return member.replace(".tsv", ".jsonl"), "\n".join(lines).encode()
    return member, content


@pytest.fixture(scope="module")
def gym(mirror, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "gym"
    paths = ["--output_dir", str(folder), "--mirror", str(mirror), "--accept_changed"]
    assert main([*paths, "--num_workers", "1", "--samples", SAMPLE, "--tasks", *BUILT]) == 1
    return folder


@pytest.mark.slow
def test_the_tasks_whose_raw_files_are_there_have_the_published_sums(gym):
    with (gym / "gym_report.csv").open(encoding="utf-8") as file:
        rows = {row["task"]: row for row in csv.DictReader(file)}
    assert rows.keys() == set(BUILT)
    assert Counter(row["outcome"] for row in rows.values()) == {
        "verified": 64,
        "differs": 1,
        "unavailable": 82,
        "unavailable, the source is gone": 3,
    }
    before = measured()
    for task, row in rows.items():
        built = before[task]["outcome"] in ("verified", "format only")
        for part in ("train", "dev", "test") if built else ():
            assert before[task][part].replace("/5", "/1").replace("5/", "1/") == row[part], task
    # The copy of SQuAD's part of LAMA gives the published few-shot rows, but other test rows.
    assert [rows["lama-squad"][part] for part in ("train", "dev", "test")] == ["1/1", "1/1", "0/1"]


@pytest.mark.slow
def test_test_rows_whose_few_shot_rows_are_not_there_have_the_published_sums(mirror):
    tasks = [task for task, row in measured().items() if row["outcome"] == TEST_ONLY]
    assert len(tasks) == 13
    for task in tasks:
        recipe = PUBLISHED[task]
        raw = next(source for source in recipe.sources if isinstance(source, Raw))
        rows = recipe.prepared(rows_of(raw, recipe.splits[1], Mirror(mirror, accept_changed=True)))
        _, test = recipe.pool_and_test([], [recipe.example(row) for row in rows])
        actual = hashlib.md5(content_of(recipe, test), usedforsecurity=False).hexdigest()
        assert published_sums()[f"{task}_{recipe.k}_100_test.tsv"] == actual, task


def rows_of(source: Raw, split: str, files: Mirror) -> list[dict]:
    try:
        return list(source.rows(split, files))
    except Unavailable:
        return []
