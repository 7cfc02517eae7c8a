"""Raw files by URL and parquet files of the hub: from the network with caches, or from a mirror folder.

The cache of raw files and mirrors have the layout <host>/<path of the URL>.
"""

import csv
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import parent_process
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, unquote, urlsplit

from filelock import FileLock

from dataloader.checksums import sha256
from dataloader.errors import in_brief

CHECKSUMS = Path(__file__).with_name("downloads.csv")  # of the files that the published gym was made from
RETRIES = 4  # of a failed download, after pauses of 1, 2, 3 and 4 seconds
TIMEOUT = 30  # seconds without a byte from the server
CHUNK = 1 << 18  # bytes that are written at once
MAY_PASS = (408, 429)  # client errors after which a download is tried again: time is up, too many requests

_unreachable: set[str] = set()  # hosts that this process could not connect to

Result = TypeVar("Result")


class Unavailable(Exception):
    """A source cannot be read; the message says why."""


@cache
def checksums() -> dict[str, tuple[int, str]]:
    """Returns the size in bytes and the SHA-256 of each URL for which they are known."""
    with CHECKSUMS.open(encoding="utf-8", newline="") as file:
        return {row["url"]: (int(row["bytes"]), row["sha256"]) for row in csv.DictReader(file)}


def path_of(url: str, folder: Path) -> Path:
    """Returns the path of a URL's file in a cache or mirror folder: <host>/<path>[?<query>]."""
    parts = urlsplit(url)
    path = folder / parts.netloc / re.sub("/+", "/", unquote(parts.path)).lstrip("/")
    return path.with_name(f"{path.name}?{quote(parts.query, safe='=&')}") if parts.query else path


@dataclass(frozen=True)
class Files:
    """Makes files available, and checks those in `folder` against the checksums, unless changes are accepted.

    Subclasses have `_raw` and `_file`, which return paths, and `_names` of all files of a hub's repository.
    """

    folder: Path
    accept_changed: bool = False

    def raw(self, url: str) -> Path:
        """Returns the file of a URL. Raises Unavailable, also if it is not the one of 2021."""
        path = self._raw(url)
        if url in checksums() and not self.accept_changed:
            size, expected = checksums()[url]
            if (actual := sha256(path)) != expected:
                raise Unavailable(
                    f"{path} is damaged, or {url} has changed since 2021: SHA-256 {actual[:12]}..., expected "
                    f"{expected[:12]}... of {size} bytes (delete it, or accept it with --accept_changed)"
                )
        return path

    def parquet(self, repository: str, config: str, split: str) -> list[Path]:
        """Returns the files of a split of a data set on the hub, in order. Raises Unavailable."""
        errors: list[str] = []
        for revision in ("main", CONVERTED):
            try:
                chosen = select_parquet(self._names(repository, revision), repository, config, split)
            except Unavailable as error:
                errors.append(str(error))
            else:
                return [self._file(repository, revision, name) for name in chosen]
        raise Unavailable("; ".join(dict.fromkeys(errors)))


class Mirror(Files):
    """Files from a folder; nothing is downloaded."""

    def _raw(self, url: str) -> Path:
        # Mirrors made by other tools have no query in their names.
        for path in (path_of(url, self.folder), path_of(url.partition("?")[0], self.folder)):
            if path.is_file():
                return path
        raise Unavailable(f"{url} is not in {self.folder}")

    def _names(self, repository: str, revision: str) -> list[str]:
        top = self._file(repository, revision, "")
        if not top.is_dir():
            raise Unavailable(f"huggingface.co/datasets/{repository} is not in {self.folder}")
        return [path.relative_to(top).as_posix() for path in top.rglob("*.parquet")]

    def _file(self, repository: str, revision: str, name: str) -> Path:
        return self.folder / f"huggingface.co/datasets/{repository}/resolve" / revision / name


class Downloads(Files):
    """Files from the network. Raw files are kept in `folder`, those of the hub in the hub's own cache."""

    def _raw(self, url: str) -> Path:
        import pooch

        path = path_of(url, self.folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        download = pooch.HTTPDownloader(
            progressbar=sys.stderr.isatty() and parent_process() is None,  # several bars would mix
            chunk_size=CHUNK,
            timeout=TIMEOUT,
            headers={"Accept-Encoding": "identity"},  # otherwise .gz files may arrive uncompressed
            hooks={"response": partial(refuse, url)},
        )
        cached = pooch.Pooch(path.parent, "", {path.name: None}, {path.name: url}, retry_if_failed=RETRIES)
        with FileLock(f"{path}.lock"):  # several tasks are made from the same file
            if not path.exists():
                fetched(partial(cached.fetch, path.name, None, download), url)
        return path

    def _names(self, repository: str, revision: str) -> list[str]:
        return fetched(partial(names_on_hub, repository, revision), _page(repository, revision))

    def _file(self, repository: str, revision: str, name: str) -> Path:
        from huggingface_hub import hf_hub_download

        download = partial(hf_hub_download, repository, name, repo_type="dataset", revision=revision)
        return Path(fetched(download, _page(repository, revision)))


def _page(repository: str, revision: str) -> str:
    return f"https://huggingface.co/datasets/{repository} at {revision}"


@cache  # each split asks, and each task of the repository
def names_on_hub(repository: str, revision: str) -> list[str]:
    """Returns the paths of all files of a revision of a data set."""
    from huggingface_hub import HfApi

    return HfApi().list_repo_files(repository, repo_type="dataset", revision=revision)


def refuse(url: str, response, **_) -> None:
    """Raises Unavailable for an answer of requests that would be the same again, or that is a web page."""
    status = response.status_code
    if 400 <= status < 500 and status not in MAY_PASS:
        raise Unavailable(f"{url}: the server answers with status {status}")
    if status == 200 and "text/html" in response.headers.get("content-type", ""):
        raise Unavailable(f"{url}: the server sends a web page in place of the file")


def fetched(fetch: Callable[[], Result], url: str) -> Result:
    """Returns fetch(). Raises Unavailable if it fails for good; an unreachable host is not asked again."""
    from huggingface_hub import errors

    host = urlsplit(url).netloc
    if host in _unreachable:
        raise Unavailable(f"{url}: {host} could not be reached before")
    try:
        return fetch()
    except (errors.HTTPError, OSError) as error:  # of the clients below the hub's, and below pooch
        if getattr(error, "errno", None):  # of this machine, such as a full disk
            raise
        cause = error.__cause__ or error if isinstance(error, errors.LocalEntryNotFoundError) else error
        # ConnectError or ConnectTimeout of the hub's client, ConnectionError of that of pooch
        if any(kind.__name__.startswith("Connect") for kind in type(cause).__mro__):
            _unreachable.add(host)
        raise Unavailable(f"{url}: all attempts failed, the last one because: {in_brief(cause)}") from None


CONVERTED = "refs/convert/parquet"  # revision with the files that the hub made from a data set's script

# cola/train-00000-of-00001.parquet, data/train-00000-of-00002-0a1b2c.parquet, plain_text/train.parquet
_OWN = re.compile(r"(?:data/)?(?:(?P<config>[^/]+)/)?(?P<split>[\w.]+?)(?:-\d+-of-\d+(?:-\w+)?)?\.parquet")
# cola/train/0000.parquet, cola/partial-train/0000.parquet
_CONVERTED = re.compile(r"(?P<config>[^/]+)/(?:partial-)?(?P<split>[^/]+)/\d{4}\.parquet")
DEFAULTS = ("", "default", "plain_text")  # what the hub calls the configuration of a data set with one


def select_parquet(names: list[str], repository: str, config: str, split: str) -> list[str]:
    """Returns the paths, sorted, of a split's files.

    names: paths of all files of the repository. config: "" for the only configuration or the default one.
    Raises Unavailable if there is no such configuration or split, or if only a part of it was converted.
    """
    files: dict[str, dict[str, list[str]]] = {}  # {configuration: {split: names}}
    for name in sorted(names):
        if match := _CONVERTED.fullmatch(name) or _OWN.fullmatch(name):
            files.setdefault(match["config"] or "", {}).setdefault(match["split"], []).append(name)
    candidates = [config, *(DEFAULTS if not config or len(files) == 1 else ())]
    if not config and len(files) == 1:
        candidates += files
    chosen = next((name for name in candidates if name in files), None)
    if chosen is None:
        has = ", ".join(sorted(files)) or "no parquet files"
        raise Unavailable(f"{repository} has no configuration {config or 'by default'} (it has {has})")
    if split not in files[chosen]:
        has = ", ".join(sorted(files[chosen]))
        raise Unavailable(f"{repository} {chosen or 'default'} has no split {split} (it has {has})")
    if any("/partial-" in name for name in files[chosen][split]):
        raise Unavailable(f"{repository} {chosen}: the hub has converted only a part of the split {split}")
    return files[chosen][split]
