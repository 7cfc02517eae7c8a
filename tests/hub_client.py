"""A client of the hub whose models are folders: `snapshot_download` and `HfApi` without a network."""

import hashlib
import os
import shutil
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError

from routing_moe.io import hub


class HubClient:
    """requests: the names that were downloaded. private: of the repositories that a push created."""

    url = constants.ENDPOINT

    def __init__(self, cache: Path, place: Path):
        self.cache, self.place, self.is_offline = cache, place, False
        self.revisions: dict[tuple[str, str], str] = {}  # (repository, branch, tag or commit): commit
        self.cached: dict[tuple[str, str], Path] = {}
        self.folders: dict[str, Path] = {}  # by commit
        self.requests: list[str] = []
        self.tokens: dict[str, str | None] = {}
        self.private: dict[str, bool] = {}

    def publish(self, repository: str, folder: Path, revision: str = "main") -> str:
        """Makes a folder the newest commit of a branch or tag; returns the commit."""
        commit = hashlib.sha1(f"{repository} {len(self.folders)}".encode()).hexdigest()
        self.folders[commit] = folder
        self.revisions[repository, revision] = self.revisions[repository, commit] = commit
        return commit

    def snapshot_download(
        self,
        repository,
        revision=None,
        local_files_only=False,
        allow_patterns="*",
        ignore_patterns=(),
        token=None,
    ) -> str:
        key = repository, revision or "main"
        if local_files_only:
            if key not in self.cached:
                raise LocalEntryNotFoundError("not cached")
            return str(self.cached[key])
        self.requests.append(repository)
        self.tokens[repository] = token
        if self.is_offline or key not in self.revisions:
            raise OSError("no answer")
        commit = self.revisions[key]
        models = self.cache / f"models--{repository.replace('/', '--')}"
        self.cached[key] = self.cached[repository, commit] = snapshot = models / "snapshots" / commit
        for file in (path for path in self.folders[commit].rglob("*") if path.is_file()):
            name = file.relative_to(self.folders[commit])
            if any(fnmatch(name.as_posix(), pattern) for pattern in allow_patterns):
                blob = models / "blobs" / f"{commit}-{name.as_posix().replace('/', '-')}"
                (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
                blob.parent.mkdir(exist_ok=True)
                shutil.copyfile(file, blob)
                (snapshot / name).unlink(missing_ok=True)
                (snapshot / name).symlink_to(blob)  # as in the cache of the hub
        return str(snapshot)

    def create_repo(self, repository, private=None, exist_ok=True) -> str:
        if self.is_offline or os.environ["HF_TOKEN"] != "may write":
            raise OSError("no answer" if self.is_offline else "403 Forbidden")
        if (repository, "main") not in self.revisions:
            self.private[repository] = bool(private)
            (self.place / "empty").mkdir(parents=True)
            (self.place / "empty/.gitattributes").touch()
            self.publish(repository, self.place / "empty")
        return f"{self.url}/{repository}"

    def model_info(self, repository) -> SimpleNamespace:
        return SimpleNamespace(private=self.private.get(repository, False))

    def upload_folder(self, repo_id, folder_path, commit_message, delete_patterns) -> SimpleNamespace:
        newest = self.folders[self.revisions[repo_id, "main"]]
        folder = shutil.copytree(newest, self.place / str(len(self.folders)))
        for file in [path for path in folder.rglob("*") if path.is_file()]:
            if any(fnmatch(file.relative_to(folder).as_posix(), pattern) for pattern in delete_patterns):
                file.unlink()
        shutil.copytree(folder_path, folder, dirs_exist_ok=True)
        return SimpleNamespace(oid=self.publish(repo_id, folder))


@pytest.fixture
def hub_client(tmp_path, monkeypatch) -> HubClient:
    """The client of this process, with an empty cache in tmp_path/cache."""
    client = HubClient(tmp_path / "cache/hub", tmp_path / "uploads")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(client.cache))
    monkeypatch.setattr(hub, "snapshot_download", client.snapshot_download)
    monkeypatch.setattr(hub, "HfApi", lambda: client)
    monkeypatch.setattr(hub, "_folders", {})
    return client
