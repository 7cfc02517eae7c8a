"""Compares the files of a task with the MD5 sums of the published gym."""

from __future__ import annotations

import csv
import hashlib
import math
from functools import cache, lru_cache
from itertools import permutations
from pathlib import Path

PUBLISHED = Path(__file__).with_name("published_md5sums.csv")
MOST_BYTES = 2_000_000_000  # hashed per file to try orders of answers, a few seconds

EQUAL, REORDERED, UNDECIDED, DIFFERENT = "equal", "order differs", "too many orders", "different"


@cache
def published_sums() -> dict[str, str]:
    """Returns the MD5 sum of each of the 2,400 published files."""
    with PUBLISHED.open(encoding="utf-8", newline="") as file:
        return {row["file"]: row["md5"] for row in csv.DictReader(file)}


def compare(name: str, content: bytes, answers_are_a_set: bool) -> str:
    """Returns how a file compares with the published one of this name.

    EQUAL; DIFFERENT; and for rows whose answers are a set: REORDERED if the published file has the same rows
    with some answers in another order, and UNDECIDED if there are too many orders to try.
    """
    expected = published_sums()[name]
    if hashlib.md5(content, usedforsecurity=False).hexdigest() == expected:
        return EQUAL
    if not answers_are_a_set:
        return DIFFERENT
    return compare_orders(content, expected)


@lru_cache(maxsize=16)  # the test files of all samples are the same
def compare_orders(content: bytes, expected: str) -> str:
    """Returns REORDERED, UNDECIDED or DIFFERENT for a file that is not equal as it is."""
    rows = [line.split(b"\t") for line in content.removesuffix(b"\n").split(b"\n")]
    n_orders = math.prod(math.factorial(len(row) - 1) for row in rows)
    if n_orders == 1:
        return DIFFERENT
    if n_orders * len(content) > MOST_BYTES:
        return UNDECIDED
    return REORDERED if equal_in_some_order(rows, expected) else DIFFERENT


def equal_in_some_order(rows: list[list[bytes]], expected: str) -> bool:
    """Returns whether the lines have this MD5 sum when the answers of each row are put in some order.

    rows: fields of each line, the input first. Lines before the first row with several answers, and between
    two such rows, are hashed once.
    """
    blocks: list[list[bytes]] = [[b""]]  # per block of lines, its variants
    for source, *answers in rows:
        variants = [b"\t".join((source, *order)) + b"\n" for order in permutations(answers)]
        if len(variants) == 1 and len(blocks[-1]) == 1:
            blocks[-1] = [blocks[-1][0] + variants[0]]
        else:
            blocks.append(variants)

    def search(hashed, index: int) -> bool:
        if index == len(blocks):
            return hashed.hexdigest() == expected
        for variant in blocks[index]:
            extended = hashed.copy()
            extended.update(variant)
            if search(extended, index + 1):
                return True
        return False

    return search(hashlib.md5(usedforsecurity=False), 0)
