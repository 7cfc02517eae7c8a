"""A hub on the loopback address: models and data sets with several commits, uploads, and failures."""

import hashlib
import json
import re
import shutil
import threading
from base64 import b64decode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import huggingface_hub
import pytest
from huggingface_hub import constants

from routing_moe.io import hub

SHORT = 0.5  # seconds that a process waits for a hub which does not answer


class LocalHub(ThreadingHTTPServer):
    """Serves folders as commits of models. patch: changes this process until the test ends."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.revisions: dict[tuple[str, str], str] = {}  # (repository, branch, tag or commit): commit
        self.folders: dict[str, Path] = {}  # by commit
        self.requests: list[str] = []
        self.status: int | None = None  # of the answers to all requests
        self.missing = ""  # a file that is listed but cannot be downloaded
        self.hangs = "$^"  # pattern of "METHOD path", of requests that get no answer
        self.private: dict[str, bool] = {}  # of repositories that were created by a request
        self.tokens = {"may write": 200, "may read": 403}  # {token: status of requests that write}
        self.uploaded: dict[str, bytes] = {}  # large files by their SHA-256
        self.is_stopped = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def publish(self, repository: str, folder: Path, revision: str = "main") -> str:
        """Makes a folder the newest commit of a branch or tag; returns the commit."""
        commit = hashlib.sha1(f"{repository} {len(self.folders)}".encode()).hexdigest()
        self.folders[commit] = folder
        self.revisions[repository, revision] = self.revisions[repository, commit] = commit
        return commit

    def commit(self, repository: str, operations: list[dict]) -> str:
        """Makes a commit of uploaded files, on top of the newest one; returns it."""
        folder = self.place / str(len(self.folders))
        newest = self.revisions.get((repository, "main"))
        if newest:
            shutil.copytree(self.folders[newest], folder)
        else:
            folder.mkdir(parents=True)
            (folder / ".gitattributes").touch()
        for kind, value in ((operation["key"], operation["value"]) for operation in operations):
            file = folder / value["path"]
            file.parent.mkdir(parents=True, exist_ok=True)
            if kind == "deletedFile":
                file.unlink()
            else:
                is_small = kind == "file"
                file.write_bytes(b64decode(value["content"]) if is_small else self.uploaded[value["oid"]])
        return self.publish(repository, folder)

    def silence(self) -> None:
        """Lets requests wait until the hub stops, and the client wait for SHORT seconds."""
        self.hangs = ""
        self.patch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", SHORT)

    def stop(self) -> None:
        self.is_stopped.set()
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET(with_body=False)

    def do_GET(self, with_body: bool = True):
        hub, quoted = self.server, urlsplit(self.path).path.lstrip("/")
        path = unquote(quoted)
        if path != "api/agent-harnesses":  # which the client asks for once a day
            hub.requests.append(path)
        if re.search(hub.hangs, f"{self.command} {path}"):
            hub.is_stopped.wait()
        if hub.status is not None:
            return self.answer(hub.status, b"", {}, with_body)
        if path.startswith(("api/models/", "api/datasets/")):
            repository, kind, revision = re.fullmatch(
                r"api/[a-z]+/(.+?)(?:/(revision|tree)/(.+))?", path
            ).groups(default="main")
        else:
            repository, _, rest = quoted.removeprefix("datasets/").partition("/resolve/")
            revision, _, kind = map(unquote, rest.partition("/"))  # refs%2Fconvert%2Fparquet
        if not any(repository == known for known, _ in hub.revisions):
            return self.answer(401, b"", {"X-Error-Code": "RepoNotFound"}, with_body)
        commit = hub.revisions.get((repository, revision))
        if commit is None:
            return self.answer(404, b"", {"X-Error-Code": "RevisionNotFound"}, with_body)
        folder, tags = hub.folders[commit], {"X-Repo-Commit": commit}
        if path.startswith("api/"):
            names = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
            info = {"id": repository, "sha": commit, "siblings": [{"rfilename": name} for name in names]}
            info["private"] = hub.private.get(repository, False)
            if kind == "tree":
                info = [{"type": "file", "path": name, "size": 0, "oid": "0" * 40} for name in names]
            return self.answer(200, json.dumps(info).encode(), tags, with_body)
        if kind == hub.missing or not (folder / kind).is_file():
            return self.answer(404, b"", tags | {"X-Error-Code": "EntryNotFound"}, with_body)
        content = (folder / kind).read_bytes()
        tags["ETag"] = f'"{hashlib.sha256(content).hexdigest()}"'
        return self.answer(200, content, tags, with_body)

    def do_PUT(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.uploaded[self.path.rpartition("/")[2]] = content
        self.answer(200, b"", {}, True)

    def do_POST(self):
        """Answers what `HfApi.upload_folder` asks without Xet. Large files are those of weights."""
        hub, path = self.server, unquote(urlsplit(self.path).path).lstrip("/")
        hub.requests.append(path)
        lines = self.rfile.read(int(self.headers["Content-Length"])).decode().splitlines()
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        status, asked = hub.tokens.get(token, 401), json.loads(lines[0])
        if status != 200:
            return self.answer(status, b"{}", {}, True)
        if path == "api/repos/create":
            repository = f"{asked['organization']}/{asked['name']}"
            if any(repository == known for known, _ in hub.revisions):
                status = 409
            else:
                hub.private[repository] = asked.get("visibility") == "private" or asked.get("private", False)
                hub.commit(repository, [])
            answer = {"url": f"{hub.url}/{repository}"}
        elif path == "api/validate-yaml":
            answer = {"errors": [], "warnings": []}
        elif "/preupload/" in path:
            modes = {True: "lfs", False: "regular"}
            answer = {
                "files": [
                    {"path": name, "uploadMode": modes[name.endswith(".safetensors")], "shouldIgnore": False}
                    for name in (file["path"] for file in asked["files"])
                ]
            }
        elif path.endswith("/objects/batch"):
            answer = {
                "objects": [
                    one | {"actions": {"upload": {"href": f"{hub.url}/upload/{one['oid']}"}}}
                    for one in asked["objects"]
                ]
            }
        else:
            repository = re.fullmatch(r"api/models/(.+)/commit/main", path)[1]
            commit = hub.commit(repository, [json.loads(line) for line in lines[1:]])
            answer = {"commitUrl": f"{hub.url}/{repository}/commit/{commit}", "commitOid": commit}
        self.answer(status, json.dumps(answer).encode(), {}, True)

    def answer(self, status: int, content: bytes, headers: dict[str, str], with_body: bool) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(content)


def use_endpoint(patch: pytest.MonkeyPatch, url: str) -> None:
    patch.setattr(constants, "ENDPOINT", url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


def forget(patch: pytest.MonkeyPatch) -> None:
    """Lets the process find models of the hub as if it had just started."""
    huggingface_hub.close_session()
    patch.setattr(hub, "_folders", {})


@pytest.fixture
def local_hub(tmp_path, monkeypatch) -> Iterator[LocalHub]:
    """The hub of this process, with an empty cache in tmp_path/cache."""
    running = LocalHub()
    use_endpoint(monkeypatch, running.url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache/hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    forget(monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    running.patch, running.place = monkeypatch, tmp_path / "uploads"
    yield running
    running.stop()
    huggingface_hub.close_session()
