"""Writes invented raw files of data sets to a mirror folder, in the form in which they are downloaded."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import urlsplit

from dataloader.building.downloads import path_of
from dataloader.building.sources import ARCHIVE_MEMBER, Raw

ARCHIVES = (".zip", ".tar.gz", ".tgz", ".tar.xz")

Content = str | bytes | dict | list  # dict, list: a JSON document
Name = str | tuple[str, ...]


class Case(NamedTuple):
    """Raw files of a task, and the lines that they become.

    files: by the path inside the archive, or the end of the URL; several names: of the same file in several
        sources. lines: of each split. All sources of a task give the same lines.
    """

    files: dict[Name, Content]
    lines: dict[str, list[str]]


def case(files: dict[Name, Content], **lines: list[str]) -> Case:
    return Case(files, lines)


def jsonl(*rows: dict) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def raw_sources(recipe) -> list[Raw]:
    return [source for source in recipe.sources if isinstance(source, Raw)]


def write_raw_files(folder: Path, sources: Iterable[Raw], files: dict[Name, Content]) -> None:
    """Writes the files to the places of the sources' URLs. Every file must belong to some URL."""
    contents = {
        name: as_bytes(content)
        for names, content in files.items()
        for name in (names if isinstance(names, tuple) else (names,))
    }
    unused = set(contents)
    archives: dict[str, dict[str, bytes]] = {}
    urls = {url for source in sources for split in (source.every, *source.splits.values()) for url in split}
    for url in sorted(urls):
        address, _, member = url.partition(ARCHIVE_MEMBER)
        path = urlsplit(address).path
        if member:
            archives.setdefault(address, {})[member] = contents[member]
            unused.discard(member)
        elif path.endswith(ARCHIVES):
            archives[address] = contents
            unused.clear()
        else:
            matching = [name for name in contents if path.endswith(f"/{name}")]
            assert matching, f"there is no file for {url}"
            name = max(matching, key=len)
            write(path_of(address, folder), contents[name])
            unused.discard(name)
    for address, members in archives.items():
        write(path_of(address, folder), packed(urlsplit(address).path, members))
    assert not unused, f"no URL of the task names these files: {unused}"


def as_bytes(content: Content) -> bytes:
    if isinstance(content, bytes):
        return content
    return (content if isinstance(content, str) else json.dumps(content)).encode()


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    compressed = path.suffix == ".gz" and not path.name.endswith(ARCHIVES)
    path.write_bytes(gzip.compress(content) if compressed else content)


def packed(name: str, members: dict[str, bytes]) -> bytes:
    """Returns the archive of these members and of the folders that they are in."""
    folders = {f"{parent}/" for member in members for parent in PurePosixPath(member).parents} - {"./"}
    buffer = io.BytesIO()
    if name.endswith(".zip"):
        with zipfile.ZipFile(buffer, "w") as archive:
            for member, content in {**dict.fromkeys(sorted(folders), b""), **members}.items():
                archive.writestr(member, content)
        return buffer.getvalue()
    with tarfile.open(fileobj=buffer, mode="w:xz" if name.endswith(".xz") else "w:gz") as archive:
        for folder in sorted(folders):
            info = tarfile.TarInfo(folder)
            info.type = tarfile.DIRTYPE
            archive.addfile(info)
        for member, content in members.items():
            info = tarfile.TarInfo(member)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
