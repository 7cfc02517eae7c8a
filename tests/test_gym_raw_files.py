"""Every reader of raw files gives the expected lines on invented files in the form of the original ones.

data/raw_files.json has one task per reader: its "files", and the "lines" of each split that they become. The
"names" of a file are those in the sources of the task, each a path inside the archive or the end of the URL.
Its content is a "text", a text in "latin-1", or a "json" document.
"""

import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import pytest

from dataloader.building.downloads import Mirror, path_of
from dataloader.building.raw_file import RawFile
from dataloader.building.recipe import ARCHIVE_MEMBER, Raw
from dataloader.recipes import PUBLISHED

CASES = json.loads((Path(__file__).parent / "data/raw_files.json").read_text(encoding="utf-8"))
ARCHIVES = (".zip", ".tar.gz", ".tgz", ".tar.xz")


def raw_sources(recipe) -> list[Raw]:
    return [source for source in recipe.sources if isinstance(source, Raw)]


def test_every_reader_has_raw_files_here():
    readers = {task: {source.read for source in raw_sources(recipe)} for task, recipe in PUBLISHED.items()}
    names = {task: {f"{read.__module__}.{read.__qualname__}" for read in readers[task]} for task in PUBLISHED}
    tested = set().union(*(names[task] for task in CASES))
    assert {task: missing for task in PUBLISHED if (missing := names[task] - tested)} == {}


@pytest.mark.parametrize("task", CASES)
def test_the_raw_files_of_a_task_give_the_expected_lines(task, tmp_path):
    recipe, lines = PUBLISHED[task], CASES[task]["lines"]
    sources = raw_sources(recipe)
    write_raw_files(tmp_path, sources, contents_of(CASES[task]["files"]))
    mirror = Mirror(tmp_path, accept_changed=True)
    assert lines.keys() == {split for source in sources for split in recipe.splits if has(source, split)}
    for source in sources:
        for split in lines:
            if has(source, split):
                rows = recipe.prepared(source.rows(split, mirror))
                assert ["\t".join(recipe.example(row)) for row in rows] == lines[split]


def has(source: Raw, split: str) -> bool:
    return bool(source.every) or split in source.splits


def contents_of(files: list[dict]) -> dict[str, bytes]:
    return {
        name: file["latin-1"].encode("latin-1")
        if "latin-1" in file
        else (file["text"] if "text" in file else json.dumps(file["json"])).encode()
        for file in files
        for name in file["names"]
    }


def write_raw_files(folder: Path, sources: Iterable[Raw], contents: dict[str, bytes]) -> None:
    """Writes the files where a mirror has the sources' URLs. Every file must belong to some URL."""
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
            name = max((name for name in contents if path.endswith(f"/{name}")), key=len)
            write(path_of(address, folder), contents[name])
            unused.discard(name)
    for address, members in archives.items():
        write(path_of(address, folder), packed(urlsplit(address).path, members))
    assert not unused, f"no URL of the task names these files: {unused}"


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


def test_compressed_files_are_uncompressed_in_and_out_of_archives(tmp_path):
    (tmp_path / "tea.txt.gz").write_bytes(gzip.compress(b"hot\ntea\n"))
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.write(tmp_path / "tea.txt.gz", "texts/tea.txt.gz")
    archive = RawFile(tmp_path / "data.zip")
    files = (RawFile(tmp_path / "tea.txt.gz"), RawFile(archive.path, "texts/tea.txt.gz"), *archive.members())
    assert [file.lines() for file in files] == [["hot", "tea"]] * 3
