"""Publishes a folder on the Hugging Face hub."""

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import constants, get_token

from dataloader.errors import Faults, InputError
from routing_moe.io.hub import failure_of, repository_and_revision


def push_faults(name: str, uploads: bool) -> list[str]:
    """Returns faults of a name to push to, and if it `uploads`, of a process that cannot."""
    faults = []
    if "@" in name or name.count("/") != 1 or not Faults().of(repository_and_revision, name):
        faults.append(f"{name}: not a name on the hub; give owner/name, such as my-group/my-mixture")
    if uploads and constants.HF_HUB_OFFLINE:
        faults += [
            "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set, which forbids uploads; --dry_run FOLDER "
            "writes the files"
        ]
    elif uploads and not get_token():
        faults += ["no token for the hub: hf auth login, or HF_TOKEN; --dry_run FOLDER only writes the files"]
    return faults


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
