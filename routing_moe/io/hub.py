"""Finds models by their names on the Hugging Face hub, and downloads them into its local cache.

A hub name is "name" or "organisation/name", or either with "@" and a branch, tag or commit. A process asks
the hub once which commit a name stands for. Configuration, weights and tokenizer then come from the folder of
that commit in the cache, so that they belong together, and nothing else waits for the network. If the hub
does not answer, the commit in the cache is used.
"""

import json
import logging
import os
import re
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from dataloader.atomic_files import write_text
from dataloader.errors import InputError, in_brief

SECONDS = 10  # for the hub to name the commit and to send its config.json
# Environment variable of worker processes, so that they load the same commits: JSON, {hub name: commit}.
COMMITS = "ROUTING_MOE_HUB_COMMITS"
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")  # variables that forbid the network
PART = r"(?:\d+_\w+/)?"  # folder of a module of a sentence encoder
SMALL_FILES = re.compile(rf"{PART}[^/]+\.(?:json|txt|model)")
WEIGHTS = (("model", "safetensors"), ("pytorch_model", "bin"))  # what transformers loads, the first one found
TOKENIZERS = re.compile(r"tokenizer\.json|vocab\.(?:json|txt)|.+\.model")

log = logging.getLogger("routing_moe")
Result = TypeVar("Result")


class NotAvailable(InputError):
    """The hub cannot be reached or has no such model, and the cache has no copy of it."""


@dataclass(frozen=True)
class Snapshot:
    """A commit of a model, and its folder in the cache.

    files: what loading needs and may be missing in the folder.
    """

    repository: str
    revision: str
    commit: str
    folder: Path
    files: Sequence[str] = ()


_found: dict[str, Snapshot] = {}  # by hub name
_of_main: dict[str, str] = {}  # {hub name: commit} of the main process
_silent: set[str] = set()  # addresses of hubs that did not answer this process


# ---- names


def is_hub_name(model: str) -> bool:
    """Returns whether `model` has the form of a hub name. Anything else can only be a path."""
    name = model.partition("@")[0]
    return name.count("/") <= 1 and not name.startswith((".", "/", "~")) and not name.endswith("/")


def repository_and_revision(name: str) -> tuple[str, str]:
    """Returns the parts of a hub name; the revision is "main" if there is none. Raises InputError."""
    repository, at, revision = name.partition("@")
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise InputError(f"{name}: no such folder, and not a hub name ({in_brief(error)})") from None
    if at and not revision:
        raise InputError(f"{name}: give a branch, a tag or a commit after the @")
    of_main = _of_main or json.loads(os.environ.get(COMMITS, "{}"))
    return repository, of_main.get(name) or revision or constants.DEFAULT_REVISION


def commits() -> dict[str, str]:
    """Returns {hub name: commit} of the models that this process has found, for `run.json` and workers."""
    return {name: found.commit for name, found in _found.items()}


def use_commits(of_main: dict[str, str]) -> None:
    """Lets this process load the commits that the main process has found."""
    _of_main.update(of_main)
    for name, commit in of_main.items():
        if name in _found and _found[name].commit != commit:
            del _found[name]


# ---- folders


def local_folder(source: str | Path) -> Path:
    """Returns a folder itself, or the folder of a hub name, whose missing files are downloaded.

    Raises InputError that names the source.
    """
    if Path(source).is_dir():
        return Path(source)
    name = str(source)
    if not is_hub_name(name):
        raise InputError(f"{name}: no such folder (nor a hub name such as facebook/bart-base)")
    found = snapshot(name)
    for file in found.files:
        try:
            hf_hub_download(found.repository, file, revision=found.commit)  # no request if it is there
        except Exception as error:  # the library and the network raise many types of errors
            raise InputError(
                f"{name}: {file} cannot be downloaded ({in_brief(error)}); the same command continues"
            ) from None
    if found.files:
        _remember(found)
        _found[name] = replace(found, files=())
    return found.folder


def snapshot(name: str) -> Snapshot:
    """Returns the commit of a hub name; config.json is in its folder. Raises InputError."""
    if name not in _found:
        repository, revision = repository_and_revision(name)
        cached = in_cache(name)
        is_fixed = cached is not None and cached.revision == cached.commit and _has_tokenizer(cached.folder)
        asks = not is_fixed and not (cached and constants.ENDPOINT in _silent)
        _found[name] = _asked(name, repository, revision, cached) if asks else cached
    return _found[name]


def in_cache(name: str) -> Snapshot | None:
    """Returns the commit of a hub name in the cache, or None unless configuration and weights are there."""
    repository, revision = repository_and_revision(name)
    config = try_to_load_from_cache(repository, "config.json", revision=revision)
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    return Snapshot(repository, revision, folder.name, folder) if weights_among(names_in(folder)) else None


def names_in(folder: Path) -> set[str]:
    """Returns the paths of all files of a folder, relative to it."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def _has_tokenizer(folder: Path) -> bool:
    return any(TOKENIZERS.fullmatch(name) for name in names_in(folder))


def weights_among(names: Collection[str], part: str = "") -> list[str]:
    """Returns the files of weights that transformers would load; [] if there are none or a shard is missing.

    part: "", or the folder of a module of a sentence encoder, with a slash.
    """
    for stem, ending in WEIGHTS:
        if (single := f"{part}{stem}.{ending}") in names:
            return [single]
        shards = [re.fullmatch(rf"{part}{stem}-\d+-of-(\d+)\.{ending}", name) for name in sorted(names)]
        found = [shard for shard in shards if shard]
        if found and len(found) == int(found[0][1]):
            return [shard[0] for shard in found]
    return []


def needed(names: Collection[str]) -> list[str]:
    """Returns the files of a repository that loading needs; the weights, which take longest, come last.

    Weights for other libraries (Flax, TensorFlow, Rust, ONNX), a second format and subfolders are left out.
    """
    parts = sorted({re.match(PART, name)[0] for name in names})
    small = sorted(name for name in names if SMALL_FILES.fullmatch(name))
    return small + [file for part in parts for file in weights_among(names, part)]


def _remember(found: Snapshot) -> None:
    """Notes in the cache that a branch or tag stands for this commit, whose files are all there.

    huggingface_hub does so when the first file arrives; a download that was interrupted would then hide the
    complete commit before it.
    """
    cached = in_cache(f"{found.repository}@{found.revision}")
    if found.revision != found.commit and (cached is None or cached.commit != found.commit):
        ref = found.folder.parents[1] / "refs" / found.revision
        with suppress(OSError):  # the cache may be read-only
            ref.parent.mkdir(parents=True, exist_ok=True)
            write_text(ref, found.commit)


# ---- asking the hub


def _asked(name: str, repository: str, revision: str, cached: Snapshot | None) -> Snapshot:
    """Returns the commit that the hub names within SECONDS, else `cached`. Raises InputError."""
    from huggingface_hub.errors import OfflineModeIsEnabled, RevisionNotFoundError

    try:
        return within(SECONDS, lambda: _ask(repository, revision))
    except RevisionNotFoundError:
        raise InputError(
            f"{name}: {constants.ENDPOINT}/{repository} has no revision {revision!r}; give a branch, a tag "
            "or all 40 characters of a commit"
        ) from None
    except OfflineModeIsEnabled:
        variable = next((variable for variable in OFFLINE if os.environ.get(variable)), OFFLINE[0])
        reason, is_answered = f"{variable} is set, which forbids downloads", False
    except Exception as error:  # the library and the network raise many types of errors
        reason, is_answered = _reason(error, repository), constants.ENDPOINT not in _silent
        if cached is not None and os.environ.get("RANK", "0") == "0":
            log.warning("%s: %s; the copy in the cache is used, commit %s", name, reason, cached.commit)
    if cached is not None:
        return cached
    remedy = "" if is_answered else f", which `hf download {repository}` makes where there is network"
    raise NotAvailable(
        f"{name}: no such folder, and no model of the hub: {reason}; the cache {constants.HF_HUB_CACHE} has "
        f"no complete copy{remedy}"
    )


def _ask(repository: str, revision: str) -> Snapshot:
    """Asks the hub for the commit and its files, and downloads config.json unless it is in the cache."""
    from huggingface_hub import HfApi

    hub_log = logging.getLogger("huggingface_hub")
    level = hub_log.level
    hub_log.setLevel(logging.ERROR)  # each of its attempts is a warning
    try:
        info = HfApi().model_info(repository, revision=revision, timeout=SECONDS)
        config = hf_hub_download(repository, "config.json", revision=info.sha, etag_timeout=SECONDS)
    finally:
        hub_log.setLevel(level)
    files = needed({file.rfilename for file in info.siblings or ()})
    return Snapshot(repository, revision, info.sha, Path(config).parent, files)


def within(seconds: float, action: Callable[[], Result]) -> Result:
    """Returns action(). Raises TimeoutError if it takes longer.

    Time limits of the network's libraries hold for each address, and not for looking up a host's name. The
    thread of an action that takes too long does not keep the process from ending.
    """
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(action())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future.result(timeout=seconds)


def _reason(error: Exception, repository: str) -> str:
    """Returns in words why the hub did not name a commit, and notes a hub that cannot be reached."""
    import httpx
    from huggingface_hub import errors

    hub, log_in = constants.ENDPOINT, "log in (hf auth login, or HF_TOKEN)"
    if isinstance(error, errors.GatedRepoError):
        return f"access must be granted on {hub}/{repository}; then {log_in}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{hub} has no model {repository}, or only for users who {log_in}"
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return f"{hub}/{repository} has no config.json"
    if isinstance(error, errors.HfHubHTTPError):
        return f"{hub} answers with status {error.response.status_code}"
    _silent.add(hub)
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return f"{hub} did not answer within {SECONDS} seconds"
    return f"{hub} cannot be reached ({in_brief(error.__cause__ or error)})"
