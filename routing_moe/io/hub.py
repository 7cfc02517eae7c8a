"""Finds models by their names on the Hugging Face hub, and downloads them into its local cache.

A hub name is "name" or "organisation/name", or either with "@" and a branch, tag or commit. A process asks
the hub once which commit a name stands for. All files then come from the folder of that commit in the cache,
so that they belong together, and nothing else waits for the network.

If the cache has a commit with configuration and weights, another commit takes its place only when all its
files have arrived: the configuration within ANSWER_SECONDS, the others as long as bytes arrive.
"""

import json
import logging
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from huggingface_hub import constants, get_token, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import WeakFileLock, validate_repo_id

from dataloader.atomic_files import write_text
from dataloader.errors import Faults, InputError, in_brief
from routing_moe.io import hub_requests
from routing_moe.io.hub_requests import HubFailure, commit_and_files, download
from routing_moe.io.model_files import files_to_load, has_tokenizer, names_in, weights_among

# Environment variable of worker processes, so that they load the same commits: JSON, {hub name: commit}.
COMMITS = "ROUTING_MOE_HUB_COMMITS"
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")  # variables that forbid the network

log = logging.getLogger("routing_moe")


class NotAvailable(InputError):
    """The hub cannot be reached or has no such model, and the cache has no copy of it."""


@dataclass(frozen=True)
class Snapshot:
    """A commit of a model, and its folder in the cache.

    files: what loading needs and may be missing in the folder. why_cached: why it is not the hub's commit.
    """

    repository: str
    revision: str
    commit: str
    folder: Path
    files: Sequence[str] = ()
    why_cached: str = ""


_found: dict[str, Snapshot] = {}  # by hub name
_commits_of_main: dict[str, str] = {}  # {hub name: commit} of the main process
_silent_hubs: set[str] = set()  # addresses that did not answer this process


# ---- names


def is_hub_name(model: str) -> bool:
    """Returns whether `model` has the form of a hub name. Anything else can only be a path."""
    name = model.partition("@")[0]
    return name.count("/") <= 1 and not name.startswith((".", "/", "~")) and not name.endswith("/")


def is_on_hub(place: str | Path) -> bool:
    """Returns whether the place of a run is a hub name owner/name[@revision].

    In an existing folder, such as models/, it is a path, unless it has a revision: a mistyped path need not
    wait for the network.
    """
    path, name = Path(place), str(place)
    has_owner = is_hub_name(name) and "/" in name.partition("@")[0]
    return has_owner and not path.exists() and ("@" in name or not path.parent.is_dir())


def repository_and_revision(name: str) -> tuple[str, str]:
    """Returns the parts of a hub name; the revision is "main" if there is none. Raises InputError."""
    repository, at, revision = name.partition("@")
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise InputError(f"{name}: no such folder, and not a hub name ({in_brief(error)})") from None
    if at and not revision:
        raise InputError(f"{name}: give a branch, a tag or a commit after the @")
    commits_of_main = _commits_of_main or json.loads(os.environ.get(COMMITS, "{}"))
    return repository, commits_of_main.get(name) or revision or constants.DEFAULT_REVISION


def push_faults(name: str, uploads: bool) -> list[str]:
    """Returns faults of a name to push to, and if it `uploads`, of a process that cannot."""
    faults = []
    if "@" in name or name.count("/") != 1 or not Faults().of(repository_and_revision, name):
        faults.append(f"{name}: not a name on the hub; give owner/name, such as my-group/my-mixture")
    if uploads and constants.HF_HUB_OFFLINE:
        faults += [f"{_offline_variable()} is set, which forbids uploads; --dry_run FOLDER writes the files"]
    elif uploads and not get_token():
        faults += ["no token for the hub: hf auth login, or HF_TOKEN; --dry_run FOLDER only writes the files"]
    return faults


# ---- the folder of a model


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
    if found.files:
        cache, repository = found.folder.parents[2], found.folder.parents[1].name
        lock = cache / ".locks" / repository / f"{found.commit}.lock"
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            # The time for which another process downloads the files is not limited.
            with WeakFileLock(lock):
                _found[name] = complete(found)
        except (HubFailure, OSError) as error:
            raise InputError(f"{name}: {in_brief(error)}; the same command tries again") from None
    return found.folder


def folder_of_run(place: str | Path) -> Path:
    """Returns the folder of a run or checkpoint: `place` itself, or that of owner/name[@revision].

    Raises InputError, also if the weights there are not safetensors: pickled ones are not downloaded.
    """
    if not is_on_hub(place):
        return Path(place)
    found = snapshot(str(place))
    if not any(file.endswith(".safetensors") for file in found.files or names_in(found.folder)):
        raise InputError(f"{place}: has no model.safetensors; pickled weights of a run are not downloaded")
    return local_folder(place)


def known_folder(place: str | Path) -> Path:
    """Returns the folder of a hub name if the cache has one, else `place`; asks no hub."""
    found = _found.get(str(place)) or (Faults().of(in_cache, str(place)) if is_on_hub(place) else None)
    return found.folder if found else Path(place)


def snapshot(name: str) -> Snapshot:
    """Returns the commit of a hub name; config.json is in its folder. Raises InputError."""
    if name not in _found:
        cached = in_cache(name)
        is_fixed = cached is not None and cached.commit == cached.revision
        is_final = is_fixed and has_tokenizer(names_in(cached.folder))
        _found[name] = cached if is_final else newest_or_cached(name, cached)
    return _found[name]


def newest_or_cached(name: str, cached: Snapshot | None) -> Snapshot:
    """Returns the commit that the hub names, or `cached` if it cannot be had. Raises InputError."""
    try:
        return query_hub(name, cached)
    except HubFailure as error:
        failure = error
    if not failure.is_answer:
        _silent_hubs.add(constants.ENDPOINT)
    if cached is not None:
        if not constants.HF_HUB_OFFLINE and os.environ.get("RANK", "0") == "0":
            log.warning("%s: %s; the copy in the cache is used, commit %s", name, failure, cached.commit)
        return replace(cached, why_cached=str(failure))
    repository, _ = repository_and_revision(name)
    remedy = "" if failure.is_answer else f", which `hf download {repository}` makes where there is network"
    raise NotAvailable(
        f"{name}: no such folder, and no model of the hub: {failure}; the cache {constants.HF_HUB_CACHE} has "
        f"no complete copy{remedy}"
    )


def commits() -> dict[str, str]:
    """Returns {hub name: commit} of the models that this process has found, for `run.json` and workers."""
    return {name: found.commit for name, found in _found.items()}


def notes() -> list[str]:
    """Returns a line for the log of a run on each model that this process has found."""
    return [
        f"model: {name}, commit {found.commit}"
        + (f" (from the cache: {found.why_cached})" if found.why_cached else "")
        for name, found in _found.items()
    ]


def use_commits(commits_of_main: dict[str, str]) -> None:
    """Lets this process load the commits that the main process has found."""
    _commits_of_main.update(commits_of_main)
    for name, commit in commits_of_main.items():
        if name in _found and _found[name].commit != commit:
            del _found[name]


# ---- the cache


def in_cache(name: str) -> Snapshot | None:
    """Returns the commit of a hub name in the cache, or None unless configuration and weights are there."""
    repository, revision = repository_and_revision(name)
    config = try_to_load_from_cache(repository, "config.json", revision=revision)
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    return Snapshot(repository, revision, folder.name, folder) if weights_among(names_in(folder)) else None


# ---- the hub


def query_hub(name: str, cached: Snapshot | None) -> Snapshot:
    """Returns the commit that the hub names: with config.json, or with all files if it replaces `cached`.

    Raises HubFailure.
    """
    hub, end = constants.ENDPOINT, time.monotonic() + hub_requests.ANSWER_SECONDS
    if constants.HF_HUB_OFFLINE:
        raise HubFailure(f"{_offline_variable()} is set, which forbids downloads", is_answer=False)
    if cached is not None and hub in _silent_hubs:
        raise HubFailure(f"{hub} did not answer before", is_answer=False)
    repository, revision = repository_and_revision(name)
    commit, names = commit_and_files(repository, revision, end)
    if "config.json" not in names:
        raise HubFailure(f"{hub}/{repository} has no config.json", is_answer=True)
    folder = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repository, repo_type="model"))
    found = Snapshot(repository, revision, commit, folder / "snapshots" / commit, files_to_load(names))
    download_missing(found, ["config.json"], end)
    return found if cached is None else complete(found)


def _offline_variable() -> str:
    return next((variable for variable in OFFLINE if os.environ.get(variable)), OFFLINE[0])


def complete(found: Snapshot) -> Snapshot:
    """Downloads the missing files of a commit as long as bytes arrive. Raises HubFailure."""
    download_missing(found, found.files)
    _remember(found)
    return replace(found, files=())


def download_missing(found: Snapshot, files: Sequence[str], end: float | None = None) -> None:
    for file in files:
        if not (found.folder / file).exists():
            download(found.repository, found.commit, file, end)


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
