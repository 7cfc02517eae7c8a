"""Comparison with published sums, also of rows whose answers are in no fixed order."""

import hashlib

import pytest

from dataloader.building import verification
from dataloader.building.report import FORMAT_ONLY, PARTLY, SAME_ROWS, VERIFIED, outcome_of
from dataloader.building.verification import DIFFERENT, EQUAL, REORDERED, UNDECIDED, compare

PUBLISHED = b"q1\ta\tb\nq2\tc\nq3\td\te\tf\nq4\tg\n"


@pytest.fixture(autouse=True)
def _one_published_file(monkeypatch):
    monkeypatch.setattr(
        verification, "published_sums", lambda: {"file.tsv": hashlib.md5(PUBLISHED).hexdigest()}
    )


@pytest.mark.parametrize(
    ("content", "as_set", "expected"),
    [
        (PUBLISHED, False, EQUAL),
        (PUBLISHED, True, EQUAL),
        (b"q1\tb\ta\nq2\tc\nq3\tf\td\te\nq4\tg\n", True, REORDERED),
        (b"q1\tb\ta\nq2\tc\nq3\tf\td\te\nq4\tg\n", False, DIFFERENT),
        (b"q1\tb\ta\nq2\tx\nq3\tf\td\te\nq4\tg\n", True, DIFFERENT),
        (b"q1\tb\nq2\tc\n", True, DIFFERENT),  # no answers to reorder
        (b"q2\tc\nq1\ta\tb\nq3\td\te\tf\nq4\tg\n", True, DIFFERENT),  # rows keep their order
    ],
)
def test_a_file_is_equal_in_some_order_of_answers_only_where_they_are_a_set(content, as_set, expected):
    assert compare("file.tsv", content, as_set) == expected


def test_files_with_too_many_orders_are_not_decided():
    row = b"q\t" + b"\t".join(b"%d" % i for i in range(13)) + b"\n"  # 13! = 6e9 orders
    assert compare("file.tsv", row, True) == UNDECIDED


@pytest.mark.parametrize(
    ("results", "outcome"),
    [
        ([EQUAL, EQUAL], VERIFIED),
        ([EQUAL, REORDERED], SAME_ROWS),
        ([REORDERED], SAME_ROWS),
        ([EQUAL, REORDERED, UNDECIDED], PARTLY),
        ([UNDECIDED], FORMAT_ONLY),
        ([EQUAL, UNDECIDED, DIFFERENT], FORMAT_ONLY),
        ([DIFFERENT], FORMAT_ONLY),
    ],
)
def test_an_outcome_claims_no_more_than_was_compared(results, outcome):
    assert outcome_of(results) == outcome
