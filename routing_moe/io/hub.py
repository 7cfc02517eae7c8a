"""Finds models by their names on the Hugging Face hub: in its local cache, else by a download into it.

A hub name is "name" or "organisation/name", or either with "@" and a branch, tag or commit. A copy in the
cache with configuration, weights and tokenizer is used without a request; `hf download NAME` replaces it by
the newest commit. All files come from the folder of one commit, so that they belong together.
"""

import json
import logging
import os
import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants, errors, get_token, hf_hub_download, try_to_load_from_cache
from huggingface_hub.utils import validate_repo_id

from dataloader.atomic_files import write_text
from dataloader.errors import InputError, Problems, in_brief

# Environment variable of worker processes, so that they load the same commits: JSON, {hub name: commit}.
COMMITS = "ROUTING_MOE_HUB_COMMITS"
REVISION = re.compile(r"\w[\w./+=-]*")  # a branch, a tag, refs/pr/1, or a commit
LOG_IN = "log in (hf auth login, or HF_TOKEN)"

log = logging.getLogger("routing_moe")


class NotAvailable(InputError):
    """The hub cannot be reached or has no such model, and the cache has no copy of it."""


@dataclass(frozen=True)
class Snapshot:
    """A commit of a model, and its folder in the cache."""

    commit: str
    folder: Path


_snapshots: dict[str, Snapshot] = {}  # by hub name
_commits_of_main: dict[str, str] = {}  # {hub name: commit} of the main process


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
    except errors.HFValidationError as error:
        raise InputError(f"{name}: no such folder, and not a hub name ({in_brief(error)})") from None
    if at and not revision:
        raise InputError(f"{name}: give a branch, a tag or a commit after the @")
    if at and (".." in revision or not REVISION.fullmatch(revision)):  # it becomes a path in the cache
        raise InputError(f"{name}: {revision!r} is not the name of a branch, a tag or a commit")
    commits_of_main = _commits_of_main or json.loads(os.environ.get(COMMITS, "{}"))
    return repository, commits_of_main.get(name) or revision or constants.DEFAULT_REVISION


# ---- the folder of a model


def local_folder(source: str | Path) -> Path:
    """Returns a folder itself, or the folder of a hub name, which is downloaded if the cache has none.

    Raises InputError that names the source.
    """
    if Path(source).is_dir():
        return Path(source)
    if not is_hub_name(str(source)):
        raise InputError(f"{source}: no such folder (nor a hub name such as facebook/bart-base)")
    return snapshot(str(source)).folder


def folder_of_run(place: str | Path) -> Path:
    """Returns the folder of a run or checkpoint: `place` itself, or that of owner/name[@revision].

    Raises InputError, also if the weights there are not safetensors: pickled ones are not downloaded.
    """
    return snapshot(str(place), of_run=True).folder if is_on_hub(place) else Path(place)


def known_folder(place: str | Path) -> Path:
    """Returns the folder of a hub name if the cache has one, else `place`; asks no hub."""
    known = _snapshots.get(str(place)) or (Problems().of(in_cache, str(place)) if is_on_hub(place) else None)
    return known.folder if known else Path(place)


def repository_folder(folder: Path) -> Path:
    """Returns the folder of all files of a run: its own, or in the hub's cache, that of its repository."""
    folder, cache = folder.resolve(), Path(constants.HF_HUB_CACHE).resolve()
    return cache / folder.relative_to(cache).parts[0] if folder.is_relative_to(cache) else folder


def snapshot(name: str, of_run: bool = False) -> Snapshot:
    """Returns the commit of a hub name with all files that loading needs. Raises InputError.

    of_run: whether it must have safetensors.
    """
    if name not in _snapshots:
        cached = in_cache(name)
        is_complete = cached is not None and has_tokenizer(names_in(cached.folder))
        _snapshots[name] = cached if is_complete else _downloaded(name, cached, of_run)
    if of_run and not any(file.endswith(".safetensors") for file in names_in(_snapshots[name].folder)):
        raise _pickled(name)
    return _snapshots[name]


def in_cache(name: str) -> Snapshot | None:
    """Returns the commit of a hub name in the cache, or None unless configuration and weights are there."""
    repository, revision = repository_and_revision(name)
    config = try_to_load_from_cache(repository, "config.json", revision=revision)
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    return Snapshot(folder.name, folder) if weights_among(names_in(folder)) else None


def _downloaded(name: str, cached: Snapshot | None, of_run: bool) -> Snapshot:
    """Downloads the newest commit of a hub name; if that fails, returns `cached`, which has no tokenizer."""
    from huggingface_hub import HfApi

    repository, revision = repository_and_revision(name)
    try:
        info = HfApi().model_info(repository, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        names = {file.rfilename for file in info.siblings or ()}
        if "config.json" not in names:
            raise InputError(f"{name}: {constants.ENDPOINT}/{repository} has no config.json")
        if of_run and not any(file.endswith(".safetensors") for file in names):
            raise _pickled(name)
        # One after the other, because the threads of snapshot_download() keep a process from ending.
        asked = dict(revision=info.sha, etag_timeout=constants.HF_HUB_ETAG_TIMEOUT)
        for file in files_to_load(names):
            hf_hub_download(repository, file, **asked)
        config = hf_hub_download(repository, "config.json", **asked)
    except InputError:
        raise
    except Exception as error:  # the client and the network raise many types of errors
        if cached is not None:
            return cached
        reason = failure_of(error, repository, revision)
        raise NotAvailable(
            f"{name}: no such folder, and no model of the hub: {reason}; the cache {constants.HF_HUB_CACHE} "
            "has no complete copy"
        ) from None
    folder = Path(config).parent
    _remember(folder, revision)
    return Snapshot(info.sha, folder)


def _remember(folder: Path, revision: str) -> None:
    """Notes in the cache that a branch or tag stands for the commit in `folder`, which is complete."""
    if revision != folder.name:
        ref = folder.parents[1] / "refs" / revision
        with suppress(OSError):  # the cache may be read-only
            ref.parent.mkdir(parents=True, exist_ok=True)
            write_text(ref, folder.name)


def _pickled(name: str) -> InputError:
    return InputError(f"{name}: has no model.safetensors; pickled weights of a run are not downloaded")


def failure_of(error: Exception, repository: str, revision: str = constants.DEFAULT_REVISION) -> str:
    """Returns in words what an error of the client means."""
    hub = constants.ENDPOINT
    match error:
        case errors.RevisionNotFoundError():
            advice = "give a branch, a tag or all 40 characters of a commit"
            return f"{hub}/{repository} has no revision {revision!r}; {advice}"
        case errors.GatedRepoError():
            return f"access must be granted on {hub}/{repository}; then {LOG_IN}"
        case errors.RepositoryNotFoundError():
            return f"{hub} has no model {repository}, or only for users who {LOG_IN}"
        case errors.HfHubHTTPError():
            return f"{hub} answers with status {error.response.status_code}"
        case errors.OfflineModeIsEnabled():
            return "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set, which forbids downloads"
    return f"{hub} cannot be reached ({in_brief(error)})"


# ---- commits


def commits() -> dict[str, str]:
    """Returns {hub name: commit} of the models that this process has found, for `run.json` and workers."""
    return {name: known.commit for name, known in _snapshots.items()}


def notes() -> list[str]:
    """Returns a line for the log of a run on each model that this process has found."""
    return [f"model: {name}, commit {known.commit}" for name, known in _snapshots.items()]


def use_commits(commits_of_main: dict[str, str]) -> None:
    """Lets this process load the commits that the main process has found."""
    _commits_of_main.update(commits_of_main)
    for name, commit in commits_of_main.items():
        if name in _snapshots and _snapshots[name].commit != commit:
            del _snapshots[name]


# ---- the files of a model


PART = r"(?:\d+_\w+/)?"  # folder of a module of a sentence encoder
SMALL_FILES = re.compile(rf"{PART}[^/]+\.(?:json|txt|model)")
# Of a run (`report/shared_run.py`): vectors and curves; scores; routes.
OF_RUN = re.compile(r"[^/]+\.(?:npy|npz|csv)|best/[^/]+\.csv|\d+-steps/route[^/]*\.(?:npy|txt)")
TOKENIZERS = re.compile(r"tokenizer\.json|vocab\.(?:json|txt)|.+\.model")
WEIGHTS = (("model", "safetensors"), ("pytorch_model", "bin"))  # what transformers loads, the first one found


def names_in(folder: Path) -> set[str]:
    """Returns the paths of all files of a folder, relative to it."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def files_to_load(names: Collection[str]) -> list[str]:
    """Returns those files of a repository that loading needs: small_files(names), then weights.

    Weights for other libraries (Flax, TensorFlow, Rust, ONNX), a second format and subfolders are left out.
    """
    parts = sorted({re.match(PART, name)[0] for name in names})
    return small_files(names) + [file for part in parts for file in weights_among(names, part)]


def small_files(names: Collection[str]) -> list[str]:
    """Returns the files of configuration and tokenizer, and those of a run."""
    return sorted(name for name in names if SMALL_FILES.fullmatch(name) or OF_RUN.fullmatch(name))


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


def has_tokenizer(names: Collection[str]) -> bool:
    return any(TOKENIZERS.fullmatch(name) for name in names)


# ---- upload


def push_problems(name: str, uploads: bool) -> list[str]:
    """Returns problems of a name to push to, and if it `uploads`, of a process that cannot."""
    problems = []
    if "@" in name or name.count("/") != 1 or not Problems().of(repository_and_revision, name):
        problems.append(f"{name}: not a name on the hub; give owner/name, such as my-group/my-mixture")
    if uploads and constants.HF_HUB_OFFLINE:
        problems += [
            "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set, which forbids uploads; --dry_run FOLDER "
            "writes the files"
        ]
    elif uploads and not get_token():
        problems += [
            "no token for the hub: hf auth login, or HF_TOKEN; --dry_run FOLDER only writes the files"
        ]
    return problems


def upload(folder: Path, repository: str, private: bool, replaced: Sequence[str]) -> str:
    """Makes a folder the newest commit of a repository, which is created if necessary; returns its address.

    replaced: patterns of the files that are removed if the folder does not have them, those of an earlier
    push. Raises InputError.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        url = api.create_repo(repository, private=private or None, exist_ok=True)
        if private and not api.model_info(repository).private:
            raise InputError(f"{url} exists and is public; change that in its settings")
        done = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message="Upload of a run by routing-moe",
            delete_patterns=list(replaced),
        )
    except InputError:
        raise
    except Exception as error:  # the client and the network raise many types of errors
        reason = failure_of(error, repository)
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            why = "does not accept the token" if status == 401 else "does not let this token write there"
            reason = (
                f"{constants.ENDPOINT} {why}; log in with one that may write (hf auth login, or HF_TOKEN)"
            )
        raise InputError(reason) from None
    return f"{url} (commit {done.oid})"
