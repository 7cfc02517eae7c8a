"""RawFile: a downloaded file, or a member of a downloaded archive, and readers of its formats."""

from __future__ import annotations

import csv
import gzip
import io
import lzma
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from errno import ENOENT
from pathlib import Path, PurePosixPath

from dataloader.jsonfile import parse_json

csv.field_size_limit(sys.maxsize)  # the default of 128 KiB is less than some fields have
GZIP = b"\x1f\x8b"  # the first bytes of a compressed file


@dataclass(frozen=True)
class RawFile:
    """A file on disk, or a member of an archive on disk.

    member: path inside the archive; "": the file itself. content: the member's bytes, if already read.
    """

    path: Path
    member: str = ""
    content: bytes | None = None

    @property
    def name(self) -> str:
        return PurePosixPath(self.member or self.path.as_posix()).name

    def bytes(self) -> bytes:
        """Returns the content, uncompressed. Raises FileNotFoundError if the archive has no such member."""
        content = self._stored_bytes()
        return gzip.decompress(content) if content.startswith(GZIP) else content

    def _stored_bytes(self) -> bytes:
        if self.content is not None:
            return self.content
        if not self.member:
            return self.path.read_bytes()
        for _, content in unpack(self.path, lambda name: name == self.member):
            return content
        raise FileNotFoundError(ENOENT, "no such file in the archive", f"{self.path}!{self.member}")

    def text(self, encoding: str = "utf-8") -> str:
        """Returns the content; each line end is a line feed, as in Python's text mode."""
        return self.bytes().decode(encoding).replace("\r\n", "\n").replace("\r", "\n")

    def lines(self, encoding: str = "utf-8") -> list[str]:
        """Returns the lines without their ends."""
        return self.text(encoding).removesuffix("\n").split("\n")

    def json(self):
        return parse_json(self.bytes().decode())

    def json_lines(self) -> Iterator[dict]:
        return (parse_json(line.decode()) for line in self.bytes().split(b"\n") if line.strip())

    def table(
        self, delimiter: str = ",", *, quoted: bool = True, encoding: str = "utf-8", **options
    ) -> Iterator[list[str]]:
        """Yields the fields of each line of a CSV or TSV file.

        quoted: quotation marks enclose fields. options: further options of `csv.reader`.
        """
        quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
        text = io.StringIO(self.text(encoding))
        return csv.reader(text, delimiter=delimiter, quoting=quoting, **options)

    def records(self, delimiter: str = ",", **options) -> Iterator[dict[str, str]]:
        """Yields each line of a table as a dictionary; the first has the keys, empty ones are skipped."""
        rows = self.table(delimiter, **options)
        header = next(rows)
        return (dict(zip(header, row, strict=False)) for row in rows if row)

    def members(self, start: str = "", end: str = "") -> list[RawFile]:
        """Returns the files of an archive whose paths start and end so, sorted by path."""
        members = unpack(self.path, lambda name: name.startswith(start) and name.endswith(end))
        return sorted((RawFile(self.path, *member) for member in members), key=lambda file: file.member)


def unpack(path: Path, is_wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Yields (path inside the archive, content) of the wanted files of a ZIP or TAR archive.

    A compressed TAR archive is read once, from start to end, because it has no index. Raises ValueError for a
    file that is not a complete archive.
    """
    try:
        yield from (unpack_zip if zipfile.is_zipfile(path) else unpack_tar)(path, is_wanted)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError):
        raise ValueError(f"{path} is not a complete ZIP or TAR archive") from None


def unpack_zip(path: Path, is_wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.is_dir() and is_wanted(member.filename):
                yield member.filename, archive.read(member)


def unpack_tar(path: Path, is_wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path) as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            if member.isfile() and is_wanted(name):
                yield name, archive.extractfile(member).read()
