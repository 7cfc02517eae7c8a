"""Requests to the hub with time limits, and their failures in words.

The client's own limits are for one address, attempt or read each, it tries for minutes, and the search for a
host's address has no limit. So each request has a thread here that can be left alone.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import TypeVar

from huggingface_hub import constants, errors, hf_hub_download
from huggingface_hub.utils import tqdm

from dataloader.errors import in_brief

# Seconds for the hub to name a commit and to send its small files. The client's own variable can raise them.
ANSWER_SECONDS = min(max(10, constants.HF_HUB_ETAG_TIMEOUT), 30)
STALL_SECONDS = 20  # without a byte of a file that may take longer
# Bytes per step of a progress bar: with the client's 10 MB, a slow download would seem stalled.
constants.DOWNLOAD_CHUNK_SIZE = 2**17
THREAD = "request to the hub"

Result = TypeVar("Result")


class HubFailure(Exception):
    """A request to the hub failed; the message says why.

    is_answer: whether the hub answered the request.
    """

    def __init__(self, reason: str, is_answer: bool):
        super().__init__(reason)
        self.is_answer = is_answer


def commit_and_files(repository: str, revision: str, end: float) -> tuple[str, set[str]]:
    """Returns the commit of a revision and the paths of its files. end: as below. Raises HubFailure."""
    from huggingface_hub import HfApi

    asked = dict(revision=revision, timeout=ANSWER_SECONDS)
    try:
        info = with_time_limit(end, lambda _: HfApi().model_info(repository, **asked))
    except Exception as error:  # the client and the network raise many types of errors
        raise failure_of(error, repository, revision) from None
    return info.sha, {file.rfilename for file in info.siblings or ()}


def download(repository: str, commit: str, file: str, end: float | None) -> None:
    """Downloads a file into the cache. end: as below. Raises HubFailure.

    snapshot_download() would take several files, but its threads keep a process from ending.
    """
    asked = dict(revision=commit, etag_timeout=ANSWER_SECONDS)
    try:
        with_time_limit(end, lambda bar: hf_hub_download(repository, file, **asked, tqdm_class=bar))
    except Exception as error:  # the client and the network raise many types of errors
        cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) else None
        failure = failure_of(cause or error, repository, commit, is_stall=end is None)
        raise HubFailure(f"{file} cannot be downloaded ({failure})", failure.is_answer) from None


def upload(folder: Path, repository: str, private: bool, replaced: Sequence[str]) -> str:
    """Makes a folder the newest commit of a repository, which is created if necessary; returns its address.

    replaced: patterns of the files that are removed if the folder does not have them, those of an earlier
    push. Raises HubFailure.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        url = api.create_repo(repository, private=private or None, exist_ok=True)
        if private and not api.model_info(repository).private:
            raise HubFailure(f"{url} exists and is public; change that in its settings", True)
        message = "Upload of a run by routing-moe"
        done = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message=message,
            delete_patterns=list(replaced),
        )
    except HubFailure:
        raise
    except Exception as error:  # the client and the network raise many types of errors
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            why = "does not accept the token" if status == 401 else "does not let this token write there"
            raise HubFailure(
                f"{constants.ENDPOINT} {why}; log in with one that may write (hf auth login, or HF_TOKEN)",
                True,
            ) from None
        raise failure_of(error, repository, "main") from None
    return f"{url} (commit {done.oid})"


def with_time_limit(end: float | None, request: Callable[[type[tqdm]], Result]) -> Result:
    """Returns request(bar), where bar is the class for its progress bars. Raises TimeoutError if it is late.

    end: a time.monotonic(); None: STALL_SECONDS after the start or the last new byte that a bar shows.
    A late request goes on in its thread, which shows and logs nothing and ends with the process.
    """
    last_byte, is_late = time.monotonic(), False
    received = most = 0  # bytes
    bars: list[tqdm] = []
    future: Future[Result] = Future()

    class Bar(tqdm):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs | ({"disable": True} if is_late else {}))
            bars.append(self)

        def update(self, n=1):
            nonlocal last_byte, received, most
            received += n  # below 0 where the client starts a file again, as often as it likes
            if received > most:
                last_byte, most = time.monotonic(), received
            return super().update(n)

    def run() -> None:
        try:
            future.set_result(request(Bar))
        except BaseException as error:
            future.set_exception(error)

    for handler in logging.getLogger("huggingface_hub").handlers:
        handler.addFilter(is_of_another_thread)
    threading.Thread(target=run, daemon=True, name=THREAD).start()
    while not future.done() and (left := (end or last_byte + STALL_SECONDS) - time.monotonic()) > 0:
        wait([future], left)
    if future.done():
        return future.result()
    is_late = True
    for bar in bars:
        bar.close()
    raise TimeoutError


def is_of_another_thread(record: logging.LogRecord) -> bool:
    """Returns whether a message of the client is not about a request here, whose failure is reported."""
    return record.threadName != THREAD


def failure_of(error: BaseException, repository: str, revision: str, is_stall: bool = False) -> HubFailure:
    """Returns in words what an error of the client means."""
    import httpx

    hub, log_in = constants.ENDPOINT, "log in (hf auth login, or HF_TOKEN)"
    limit = f"{ANSWER_SECONDS} seconds (HF_HUB_ETAG_TIMEOUT: at most 30)"
    match error:
        case errors.RevisionNotFoundError():
            advice = "give a branch, a tag or all 40 characters of a commit"
            return HubFailure(f"{hub}/{repository} has no revision {revision!r}; {advice}", True)
        case errors.GatedRepoError():
            return HubFailure(f"access must be granted on {hub}/{repository}; then {log_in}", True)
        case errors.RepositoryNotFoundError():
            return HubFailure(f"{hub} has no model {repository}, or only for users who {log_in}", True)
        case errors.HfHubHTTPError():
            return HubFailure(f"{hub} answers with status {error.response.status_code}", True)
        case TimeoutError() | httpx.TimeoutException():
            late = (
                f"sent nothing for {STALL_SECONDS} seconds" if is_stall else f"did not answer within {limit}"
            )
            return HubFailure(f"{hub} {late}", False)
        case httpx.TransportError() | ConnectionError() | errors.LocalEntryNotFoundError():
            return HubFailure(f"{hub} cannot be reached ({in_brief(error)})", False)
    return HubFailure(in_brief(error), True)
