"""RawFile: a downloaded file, or a member of a downloaded archive; and readers of its rows.

A reader is a function (split, file, ...) -> rows with the columns of the data set.
"""

import csv
import gzip
import io
import lzma
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from errno import ENOENT
from pathlib import Path, PurePosixPath

from dataloader.jsonfile import parse_json

csv.field_size_limit(sys.maxsize)  # the default of 128 KiB is less than some fields have
GZIP = b"\x1f\x8b"  # the first bytes of a compressed file


@dataclass(frozen=True)
class RawFile:
    """A file on disk, or a member of an archive on disk. content: the member's bytes, if already read."""

    path: Path
    member: str = ""
    content: bytes | None = None

    @property
    def name(self) -> str:
        return PurePosixPath(self.member or self.path.as_posix()).name

    def bytes(self) -> bytes:
        """Returns the content, uncompressed. Raises FileNotFoundError if the archive has no such member."""
        content = self.content
        if content is None and not self.member:
            content = self.path.read_bytes()
        elif content is None:
            members = unpack(self.path, lambda name: name == self.member)
            content = next((unpacked for _, unpacked in members), None)
        if content is None:
            raise FileNotFoundError(ENOENT, "no such file in the archive", f"{self.path}!{self.member}")
        return gzip.decompress(content) if content.startswith(GZIP) else content

    def text(self, encoding: str = "utf-8") -> str:
        """Returns the content; each line end is a line feed, as in Python's text mode."""
        return self.bytes().decode(encoding).replace("\r\n", "\n").replace("\r", "\n")

    def lines(self, encoding: str = "utf-8") -> list[str]:
        """Returns the lines without their ends."""
        return self.text(encoding).removesuffix("\n").split("\n")

    def json(self):
        return parse_json(self.bytes().decode(), dict)

    def json_lines(self) -> Iterator[dict]:
        return (parse_json(line.decode(), dict) for line in self.bytes().split(b"\n") if line.strip())

    def table(
        self, delimiter: str = ",", *, quoted: bool = True, encoding: str = "utf-8", **options
    ) -> Iterator[list[str]]:
        """Yields the fields of each line of a CSV or TSV file. quoted: quotation marks enclose fields."""
        quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
        text = io.StringIO(self.text(encoding))
        return csv.reader(text, delimiter=delimiter, quoting=quoting, **options)

    def records(self, delimiter: str = ",", **options) -> Iterator[dict[str, str]]:
        """Yields each line of a table as a dictionary; the first has the keys, empty ones are skipped."""
        rows = self.table(delimiter, **options)
        header = next(rows)
        return (dict(zip(header, row, strict=False)) for row in rows if row)

    def members(self, start: str = "", end: str = "") -> list["RawFile"]:
        """Returns the files of an archive whose paths start and end so, sorted by path."""
        members = unpack(self.path, lambda name: name.startswith(start) and name.endswith(end))
        return sorted((RawFile(self.path, *member) for member in members), key=lambda file: file.member)


def unpack(path: Path, is_wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Yields (path inside, content) of the wanted files of a ZIP or TAR archive. Raises ValueError."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    if not name.endswith("/") and is_wanted(name):
                        yield name, archive.read(name)
        else:
            with tarfile.open(path) as archive:
                for member in archive:
                    name = member.name.removeprefix("./")
                    if member.isfile() and is_wanted(name):
                        yield name, archive.extractfile(member).read()
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError):
        raise ValueError(f"{path} is not a complete ZIP or TAR archive") from None


# ---------------------------------------------------------------------------- readers


def json_lines(_: str, file: RawFile) -> Iterator[dict]:
    return file.json_lines()


def json_list(_: str, file: RawFile) -> Iterator[dict]:
    return iter(file.json())


def records(_: str, file: RawFile) -> Iterator[dict]:
    """Yields the lines of a CSV file whose first line has the names of the columns."""
    return file.records()


def with_label_indices(rows: Iterable[dict], labels: Sequence[str]) -> Iterator[dict]:
    """Yields the rows with "label" as an index; it is one of the labels, an index or a truth value."""
    for row in rows:
        label = row["label"]
        yield row | {"label": labels.index(label) if label in labels else int(label)}


def cells(delimiter: str = ",", labels: Sequence[str] = (), quoted: bool = True, **places: int):
    """Returns the reader of a table without names of columns, {name: place}; labels: those of "label"."""

    def read(_: str, file: RawFile) -> Iterator[dict]:
        table = file.table(delimiter, quoted=quoted)
        rows = ({name: row[place] for name, place in places.items()} for row in table)
        return with_label_indices(rows, labels) if "label" in places else rows

    return read


def question_with_choices(_: str, file: RawFile) -> Iterator[dict]:
    """Yields the JSON lines of AI2's question format as columns.

    "question": {"stem": "...", "choices": [{"label": "A", "text": "..."}, ...]} becomes the columns
    "question" and "question_stem" with the stem, and "choices" {"label": [...], "text": [...]}.
    """
    for item in file.json_lines():
        question = item["question"]
        choices = {key: [choice[key] for choice in question["choices"]] for key in ("label", "text")}
        stem = question["stem"]
        yield item | {"question": stem, "question_stem": stem, "choices": choices}


def squad(_: str, file: RawFile) -> Iterator[dict]:
    """Yields the questions of a JSON file in SQuAD's format, with the texts of their paragraph."""
    for article in file.json()["data"]:
        for paragraph in article["paragraphs"]:
            texts = {key: value.strip() for key, value in paragraph.items() if isinstance(value, str)}
            for item in paragraph["qas"]:
                answers = {"text": [answer["text"].strip() for answer in item["answers"]]}
                yield texts | {"question": item["question"].strip(), "answers": answers}
