"""Raw files by URL and parquet files of the hub: from the network with caches, or from a mirror folder.

The cache of raw files and mirrors have the layout <host>/<path of the URL>.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, unquote, urlsplit

from filelock import FileLock
from tqdm import tqdm

from dataloader.building.parquet_files import CONVERTED, select_parquet
from dataloader.building.sources import Unavailable, UnknownName
from dataloader.errors import in_brief

CHECKSUMS = Path(__file__).with_name("downloads.csv")  # of the files that the published gym was made from
ATTEMPTS = 5  # of one download; the n-th failure is followed by a pause of 2^(n-1) seconds
TIMEOUT = 30  # seconds without a byte from the server
LONGEST_PAUSE = 900  # seconds that a rate limit may ask for; the hub counts requests over 300
BUSY = 429  # status of a server that gets too many requests
PART = ".part"  # end of the name of an unfinished download
GONE = "it does not exist, or only for users who are logged in (hf auth login)"
MESSAGE_BY_STATUS = {401: GONE, 403: "the server refuses access", 404: GONE, 410: "it no longer exists"}

_unreachable: set[str] = set()  # hosts that this process could not reach
_answered: set[str] = set()  # hosts that have answered this process, at least with an error

Result = TypeVar("Result")


@cache
def checksums() -> dict[str, tuple[int, str]]:
    """Returns the size in bytes and the SHA-256 of each URL for which they are known."""
    with CHECKSUMS.open(encoding="utf-8", newline="") as file:
        return {row["url"]: (int(row["bytes"]), row["sha256"]) for row in csv.DictReader(file)}


def place_of(url: str, folder: Path) -> Path:
    """Returns the path of a URL's file in a cache or mirror folder: <host>/<path>[?<query>]."""
    parts = urlsplit(url)
    path = folder / parts.netloc / re.sub("/+", "/", unquote(parts.path)).lstrip("/")
    return path.with_name(f"{path.name}?{quote(parts.query, safe='=&')}") if parts.query else path


def is_expected(path: Path, url: str) -> bool:
    """Returns whether a file has the checksum of its URL, or none is known."""
    return url not in checksums() or sha256(path) == checksums()[url][1]


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_content(path: Path, url: str, accept_changed: bool) -> None:
    """Raises Unavailable if the file is not the one of 2021 that the URL's checksum belongs to."""
    if not accept_changed and not is_expected(path, url):
        size, expected = checksums()[url]
        found = sha256(path)
        raise Unavailable(
            f"{path} is damaged, or {url} has changed since 2021: SHA-256 {found[:12]}..., expected "
            f"{expected[:12]}..., {path.stat().st_size} bytes, expected {size} (delete or replace the file, "
            "or accept it with --accept_changed)"
        )


class HubFiles(ABC):
    """Finds the parquet files of a split in the revisions of a data set on the hub."""

    def parquet(self, repository: str, config: str, split: str) -> list[Path]:
        """Returns the files of a split, in order. Raises Unavailable."""
        faults: list[Unavailable] = []
        for revision in ("main", CONVERTED):
            try:
                chosen = select_parquet(self._names(repository, revision), repository, config, split)
            except Unavailable as error:
                faults.append(error)
                continue
            return [self._file(repository, revision, name) for name in chosen]
        unknown = any(isinstance(error, UnknownName) for error in faults)
        raise (UnknownName if unknown else Unavailable)("; ".join(dict.fromkeys(map(str, faults))))

    @abstractmethod
    def _names(self, repository: str, revision: str) -> list[str]:
        """Returns the paths of all files of a revision. Raises Unavailable."""

    @abstractmethod
    def _file(self, repository: str, revision: str, name: str) -> Path: ...


class Mirror(HubFiles):
    """Files from a folder; nothing is downloaded."""

    offline = True

    def __init__(self, folder: Path, accept_changed: bool = False):
        self.folder, self.accept_changed = folder, accept_changed

    def raw(self, url: str) -> Path:
        path = place_of(url, self.folder)
        if not path.is_file():  # mirrors made by other tools have no query in their names
            path = place_of(url.partition("?")[0], self.folder)
        if not path.is_file():
            raise Unavailable(f"{url} is not in {self.folder}")
        check_content(path, url, self.accept_changed)
        return path

    def _revision(self, repository: str, revision: str) -> Path:
        return self.folder / f"huggingface.co/datasets/{repository}/resolve" / revision

    def _names(self, repository: str, revision: str) -> list[str]:
        top = self._revision(repository, revision)
        if not top.is_dir():
            raise Unavailable(f"huggingface.co/datasets/{repository} is not in {self.folder}")
        return [path.relative_to(top).as_posix() for path in top.rglob("*.parquet")]

    def _file(self, repository: str, revision: str, name: str) -> Path:
        return self._revision(repository, revision) / name


class Downloads(HubFiles):
    """Files from the network. Raw files are kept in `folder`, those of the hub in the hub's own cache."""

    offline = False

    def __init__(self, folder: Path, accept_changed: bool = False):
        self.folder, self.accept_changed = folder, accept_changed
        self._listed: dict[tuple[str, str], list[str]] = {}  # by repository and revision

    def raw(self, url: str) -> Path:
        path = place_of(url, self.folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):  # several tasks are made from the same file
            if not path.exists():
                part = path.with_name(path.name + PART)
                was_there = part.exists()
                with_retries(lambda: download(url, part), url)
                if was_there and not is_expected(part, url):  # the start was of another file
                    part.unlink()
                    with_retries(lambda: download(url, part), url)
                os.replace(part, path)
        check_content(path, url, self.accept_changed)
        return path

    def _names(self, repository: str, revision: str) -> list[str]:
        from huggingface_hub import HfApi

        def listed() -> list[str]:
            info = HfApi().dataset_info(repository, revision=revision, timeout=TIMEOUT)
            return [file.rfilename for file in info.siblings or ()]

        if (repository, revision) not in self._listed:  # each split asks, and each task of the repository
            self._listed[repository, revision] = with_retries(listed, _page(repository, revision))
        return self._listed[repository, revision]

    def _file(self, repository: str, revision: str, name: str) -> Path:
        from huggingface_hub import hf_hub_download

        where = {"repo_id": repository, "repo_type": "dataset", "revision": revision, "filename": name}
        return Path(with_retries(lambda: hf_hub_download(**where), _page(repository, revision)))


def _page(repository: str, revision: str) -> str:
    return f"https://huggingface.co/datasets/{repository} at {revision}"


def with_retries(action: Callable[[], Result], url: str) -> Result:
    """Returns action(), called again after a failed connection, or when a rate limit has passed.

    Raises Unavailable when it fails for good.
    """
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    host = urlsplit(url).netloc
    if host in _unreachable:
        raise Unavailable(f"{url}: {host} could not be reached before")
    for attempt in range(ATTEMPTS):
        pause = 2**attempt
        try:
            result = action()
            _answered.add(host)
            return result
        except (httpx.HTTPStatusError, HfHubHTTPError) as error:
            _answered.add(host)
            status, asked = error.response.status_code, asked_pause(error.response.headers)
            answer = f"the server answers with status {status}"
            if status < 500 and status != BUSY:
                raise Unavailable(f"{url}: {MESSAGE_BY_STATUS.get(status, answer)}") from None
            if (asked or 0) > LONGEST_PAUSE:
                raise Unavailable(f"{url}: {answer} and asks for a pause of {asked} seconds") from None
            fault, pause = ConnectionError(answer), asked or pause
        except LocalEntryNotFoundError as error:  # after attempts of the hub's client
            raise Unavailable(f"{url}: {in_brief(error.__cause__ or error)}") from None
        except OfflineModeIsEnabled:
            raise Unavailable(
                f"{url}: HF_HUB_OFFLINE is set; unset it, or read a file of this machine"
            ) from None
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise Unavailable(f"{url}: {in_brief(error)}") from None
        except (httpx.HTTPError, ConnectionError) as error:
            fault = error
        if attempt < ATTEMPTS - 1:
            if pause > 2**attempt:
                tqdm.write(f"{host}: {in_brief(fault)}; waiting {pause} seconds, as it asks", file=sys.stderr)
            time.sleep(pause)
    is_silent = isinstance(fault, httpx.ReadTimeout) and host not in _answered
    if is_silent or isinstance(fault, httpx.ConnectError | httpx.ConnectTimeout):
        _unreachable.add(host)
    raise Unavailable(f"{url}: {ATTEMPTS} attempts failed, the last one because: {in_brief(fault)}")


def asked_pause(headers: Mapping[str, str]) -> int | None:
    """Returns the seconds that a server's headers ask to wait for, and one more; None if they ask nothing."""
    from huggingface_hub.utils import parse_ratelimit_headers

    if (limit := parse_ratelimit_headers(headers)) is not None and limit.remaining == 0:
        return limit.reset_in_seconds + 1
    seconds = headers.get("retry-after", "").strip()
    return int(seconds) + 1 if seconds.isdigit() else None


def download(url: str, part: Path) -> None:
    """Downloads a URL to `part`. A file whose checksum is known continues where an earlier attempt ended.

    Raises httpx.HTTPError, and Unavailable if a web page comes in place of the file.
    """
    import httpx

    start = part.stat().st_size if part.exists() and url in checksums() else 0
    headers = {"Accept-Encoding": "identity"}  # a range counts the bytes that are sent
    if start:
        headers["Range"] = f"bytes={start}-"
    with httpx.stream("GET", url, headers=headers, follow_redirects=True, timeout=TIMEOUT) as response:
        _answered.add(urlsplit(url).netloc)
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink()  # it is longer than the file on the server, or complete and not yet checked
            return download(url, part)
        response.raise_for_status()
        if "text/html" in response.headers.get("content-type", ""):
            raise Unavailable(f"{url}: the server sends a web page in place of the file")
        continued = response.status_code == httpx.codes.PARTIAL_CONTENT
        length = response.headers.get("content-length")
        bar = tqdm(
            total=(start if continued else 0) + int(length) if length else None,
            initial=start if continued else 0,
            unit="B",
            unit_scale=True,
            desc=part.name.removesuffix(PART),
            leave=False,
            disable=None,
        )
        with part.open("ab" if continued else "wb") as file, bar:
            for chunk in response.iter_bytes():
                file.write(chunk)
                bar.update(len(chunk))
    return None
