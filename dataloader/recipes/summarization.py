"""Summaries: AESLC (Zhang & Tetreault 2019), Gigaword (Rush et al. 2015), Multi-News (Fabbri et al. 2019),
Reddit TIFU (Kim et al. 2019), SAMSum (Gliwa et al. 2019) and XSum (Narayan et al. 2018)."""

from collections.abc import Iterator

from dataloader.building.raw_file import RawFile
from dataloader.building.recipe import Hub, Raw, Recipe, Row, text_to_text
from dataloader.building.text import clean, no_line_feeds

AESLC = "https://github.com/ryanzhumich/AESLC/archive/master.zip"


def read_aeslc(split: str, archive: RawFile) -> Iterator[Row]:
    """Yields the emails: lines of the body, an empty line, a line "@subject", lines of the subject."""
    folder = "dev" if split == "validation" else split
    for file in archive.members(f"AESLC-master/enron_subject_line/{folder}/", ".subject"):
        lines = file.text().split("\n")
        end = lines.index("")
        subject = lines[end + 2 :]
        subject = subject[: subject.index("")] if "" in subject else subject
        yield {"email_body": "\n".join(lines[:end]), "subject_line": "\n".join(subject)}


def reddit_tifu(column: str) -> Recipe:
    return text_to_text(
        "reddit_tifu-" + column,
        Hub("ctr4si/reddit_tifu", "long"),
        splits=("train",),
        input=lambda row: "summarize: " + clean(row["documents"]),
        output=lambda row: clean(row[column]),
    )


RECIPES = [
    text_to_text(
        "aeslc",
        Raw(read_aeslc, every=AESLC),
        Hub("Yale-LILY/aeslc"),
        input=lambda row: "summarize: " + clean(row["email_body"]),
        output=lambda row: clean(row["subject_line"]),
        terms="CC BY-NC-SA 4.0: non-commercial use",
    ),
    text_to_text(
        "gigaword",
        Hub("Harvard/gigaword"),
        input="summarize: {document}",
        output="{summary}",
        terms="licence of the LDC (LDC2003T05 and later); the text may not be passed on",
    ),
    text_to_text(
        "multi_news",
        Hub("alexfabbri/multi_news"),
        input=lambda row: "summarize: " + no_line_feeds(row["document"]),
        output=lambda row: no_line_feeds(row["summary"]),
        terms="non-commercial research and education only",
    ),
    reddit_tifu("title"),
    reddit_tifu("tldr"),
    text_to_text(
        "samsum",
        Hub("Samsung/samsum"),
        input=lambda row: "summarize: " + clean(row["dialogue"]),
        output=lambda row: clean(row["summary"]),
        terms="CC BY-NC-ND 4.0: non-commercial use, no derivatives",
    ),
    text_to_text(
        "xsum",
        Hub("EdinburghNLP/xsum"),
        input=lambda row: "summarize: " + no_line_feeds(row["document"]),
        output="{summary}",
    ),
]
