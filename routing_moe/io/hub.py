"""Models by their names on the Hugging Face hub: from its local cache, else by a download into it.

A hub name is "name" or "organisation/name", or either with "@" and a branch, tag or commit. A complete copy
in the cache is used without a request; `hf download NAME` replaces it by the newest commit.
"""

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi, constants, get_token, snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from huggingface_hub.utils import validate_repo_id

from dataloader.errors import InputError, did_you_mean, in_brief

SMALL_FILES = ["*.json", "*.txt", "*.model", "*.npy", "*.npz", "*.csv", "*.jinja"]  # also of a run
OTHER_LIBRARIES = ["onnx/*", "openvino/*"]
TOKENIZER_FILES = ("tokenizer.json", "vocab.json")  # a BART has one of them
OTHER_TOKENIZERS = ("vocab.txt", "*.model")
WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")  # what transformers loads, the first one found

_folders: dict[str, Path] = {}  # {hub name: folder of its commit} that this process has found


class NotAvailable(InputError):
    """The hub cannot be reached or has no such model, and the cache has no copy of it."""


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


# ---- the folder of a model


def local_folder(source: str | Path, kinds: Sequence[str] = WEIGHTS, token: str | None = None) -> Path:
    """Returns a folder itself, or that of a hub name, downloaded if the cache has no complete copy.

    kinds: patterns of weights, the first is preferred. token: of the hub. Raises InputError with the source.
    """
    name = str(source)
    if Path(source).is_dir():
        return Path(source)
    if not is_hub_name(name):
        raise InputError(f"{name}: no such folder (nor a hub name such as facebook/bart-base)")
    if name in _folders and any(has_weights(_folders[name], kind) for kind in kinds):
        return _folders[name]
    for kind in kinds:
        folder = snapshot(name, kind, token)
        if has_weights(folder, kind):
            _folders[name] = folder
            return folder
    others = "" if kinds == WEIGHTS else "; pickled weights are not downloaded"
    raise InputError(f"{name}: has no {' or '.join(kinds)}{others}")


def has_weights(folder: Path, kind: str) -> bool:
    """Returns whether a folder has files of weights, and of several shards each."""
    names = sorted(path.name for path in folder.glob(kind))
    shards = [name for name in names if "-of-" in name]
    return bool(names) if not shards else f"-of-{len(shards):05d}." in shards[0]


def snapshot(name: str, kind: str, token: str | None = None) -> Path:
    """Returns the folder of a hub name in the cache, with weights of this kind if the hub has them."""
    repository, _, revision = name.partition("@")
    in_folders = [f"*/{kind}"] if kind in WEIGHTS else []  # of a run; others, as adapters, are at the top
    files = {"allow_patterns": [*SMALL_FILES, kind, *in_folders], "ignore_patterns": OTHER_LIBRARIES}
    cached = cached_folder(name)
    others = (*TOKENIZER_FILES, *OTHER_TOKENIZERS) if kind in WEIGHTS else (kind,)
    if cached and has_weights(cached, kind) and any(any(cached.glob(file)) for file in others):
        return cached
    try:
        return Path(snapshot_download(repository, revision=revision or None, token=token, **files))
    except Exception as error:  # the client and the network raise many types of errors
        if cached and has_weights(cached, kind):
            return cached
        parent = Path(name).parent
        if "/" in repository and not is_on_hub(name):  # in an existing folder: a mistyped path
            hint = did_you_mean(Path(name).name, (path.name for path in parent.iterdir()))
            raise NotAvailable(
                f"{name}: no such folder in {parent}, and not found on the hub ({in_brief(error)}){hint}"
            ) from None
        raise NotAvailable(
            f"{name}: no such folder, and no model of the hub {constants.ENDPOINT} or of its cache "
            f"{constants.HF_HUB_CACHE} ({in_brief(error)})"
        ) from None


def cached_folder(name: str) -> Path | None:
    """Returns the folder of a hub name in the cache, which may be incomplete; None if there is none."""
    repository, _, revision = name.partition("@")
    try:
        validate_repo_id(repository)
        files = {"allow_patterns": SMALL_FILES, "ignore_patterns": OTHER_LIBRARIES}  # what a download has
        return Path(snapshot_download(repository, revision=revision or None, local_files_only=True, **files))
    except HFValidationError as error:
        raise InputError(f"{name}: no such folder, and not a hub name ({in_brief(error)})") from None
    except LocalEntryNotFoundError:
        return None


def folder_of_run(place: str | Path) -> Path:
    """Returns the folder of a run or checkpoint: `place` itself, or that of owner/name[@revision].

    Pickled weights of a run are not downloaded.
    """
    return local_folder(place, WEIGHTS[:1]) if is_on_hub(place) else Path(place)


def known_folder(place: str | Path) -> Path:
    """Returns the folder of a hub name if the cache has one, else `place`; asks no hub."""
    cached = cached_folder(str(place)) if is_on_hub(place) else None
    return cached or Path(place)


def commits() -> dict[str, str]:
    """Returns {hub name: commit} of the models that this process has found, for `run.json`."""
    return {name: folder.name for name, folder in _folders.items()}


# ---- upload


def push_problems(name: str, uploads: bool) -> list[str]:
    """Returns problems of a name to push to, and if it `uploads`, of a process that cannot."""
    problems = []
    if "@" in name or name.count("/") != 1 or " " in name:
        problems.append(f"{name}: not a name on the hub; give owner/name, such as my-group/my-mixture")
    if uploads and not get_token():
        problems.append(
            "no token for the hub: hf auth login, or HF_TOKEN; --dry_run FOLDER only writes the files"
        )
    return problems


def upload(folder: Path, repository: str, private: bool, replaced: Sequence[str]) -> str:
    """Makes a folder the newest commit of a repository, which is created if necessary; returns its address.

    replaced: patterns of the files that are removed if the folder does not have them, those of an earlier
    push. Raises InputError.
    """
    try:
        url = HfApi().create_repo(repository, private=private or None, exist_ok=True)
        if private and not HfApi().model_info(repository).private:
            raise InputError(f"{url} exists and is public; change that in its settings")
        done = HfApi().upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message="Upload of a run by routing-moe",
            delete_patterns=list(replaced),
        )
    except InputError:
        raise
    except Exception as error:  # the client and the network raise many types of errors
        raise InputError(f"{constants.ENDPOINT}/{repository}: {in_brief(error)}") from None
    return f"{url} (commit {done.oid})"
