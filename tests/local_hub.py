"""A stand-in for the Hugging Face hub: its HTTP interface on this machine, with files in memory.

It knows what uploading and downloading of models use: creating a repository, the kinds of files,
the batch API of LFS, commits, model information, trees and files. Large files go by LFS, not Xet.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

TOKEN = "hf_valid"


class Commit(NamedTuple):
    """A state of a repository: all its files."""

    message: str
    files: dict[str, bytes]

    @property
    def sha(self) -> str:
        content = [self.message, *(path + etag(file) for path, file in self.files.items())]
        return hashlib.sha1("\0".join(content).encode()).hexdigest()


@dataclass
class Repository:
    """A repository; `large` are the paths of its files in LFS."""

    private: bool = False
    commits: list[Commit] = field(default_factory=lambda: [Commit("initial commit", {})])
    large: set[str] = field(default_factory=set)

    def at(self, revision: str) -> Commit | None:
        """The commit of a revision, if there is one."""
        known = {commit.sha: commit for commit in self.commits} | {"main": self.commits[-1]}
        return known.get(revision)


class LocalHub(ThreadingHTTPServer):
    """The server; `repositories` are those of all users, `objects` the files of LFS."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """Answers a request by the first route that its path matches."""

    server: LocalHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.user = token == TOKEN
        if token and not self.user:
            return self.refuse(401, message="Invalid credentials in Authorization header")
        for pattern, answer in ROUTES.items():
            method, _, path = pattern.partition(" ")
            found = re.fullmatch(path, self.path.partition("?")[0])
            if found and self.command in method.split("|"):
                return answer(self, *found.groups())
        return self.refuse(404, code="EntryNotFound")

    do_HEAD = do_POST = do_PUT = do_GET

    def log_message(self, *arguments: object) -> None:
        """Writes no log."""

    def send(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def send_json(self, value: Any, status: int = 200) -> None:
        self.send(json.dumps(value).encode(), status, Content_Type="application/json")

    def refuse(self, status: int, code: str = "", message: str = "") -> None:
        names = {"X_Error_Code": code, "X_Error_Message": message}
        self.send(b"{}", status, **{name: value for name, value in names.items() if value})

    def repository(self, name: str) -> Repository | None:
        """A repository that the user may read; None if the request was refused."""
        found = self.server.repositories.get(name)
        if found is None or (found.private and not self.user):
            return self.refuse(404 if self.user else 401, code="RepoNotFound")
        return found

    def at(self, name: str, revision: str) -> tuple[Repository, Commit] | tuple[None, None]:
        """A repository and its commit; None if the request was refused."""
        if not (repository := self.repository(name)):
            return None, None
        if not (commit := repository.at(revision)):
            self.refuse(404, code="RevisionNotFound")
            return None, None
        return repository, commit

    def writable(self, name: str) -> Repository | None:
        """A repository that the user may write; None if the request was refused."""
        if not self.user:
            return self.refuse(401, message="Invalid username or password.")
        return self.repository(name)

    def create(self) -> None:
        wanted = json.loads(self.body)
        if not self.user:
            return self.refuse(401, message="Invalid username or password.")
        if wanted["organization"] not in (None, "user"):
            return self.refuse(403, message="no write access to the namespace")
        name = f"user/{wanted['name']}"
        url = {"url": f"{self.server.url}/{name}"}
        if name in self.server.repositories:
            return self.send_json(url, 409)
        self.server.repositories[name] = Repository(wanted.get("visibility") == "private")
        return self.send_json(url)

    def check_yaml(self) -> None:
        self.send_json({"errors": [], "warnings": []})

    def preupload(self, name: str) -> None:
        if self.writable(name):
            paths = [file["path"] for file in json.loads(self.body)["files"]]
            modes = ["lfs" if path.endswith(".safetensors") else "regular" for path in paths]
            files = [
                {"path": path, "uploadMode": mode, "shouldIgnore": False}
                for path, mode in zip(paths, modes, strict=True)
            ]
            self.send_json({"files": files})

    def lfs_batch(self, name: str) -> None:
        if self.writable(name):
            objects = json.loads(self.body)["objects"]
            for each in objects:
                each["actions"] = {"upload": {"href": f"{self.server.url}/lfs/{each['oid']}"}}
            self.send_json({"transfer": "basic", "objects": objects})

    def lfs_upload(self, oid: str) -> None:
        self.server.objects[oid] = self.body
        self.send(b"")

    def commit(self, name: str) -> None:
        if repository := self.writable(name):
            message, files = "", dict(repository.commits[-1].files)
            for line in map(json.loads, self.body.splitlines()):
                value = line["value"]
                if line["key"] == "header":
                    message = value["summary"]
                elif line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = self.server.objects[value["oid"]]
                    repository.large.add(value["path"])
            new = Commit(message, files)
            repository.commits.append(new)
            url = f"{self.server.url}/{name}/commit/{new.sha}"
            self.send_json({"success": True, "commitOid": new.sha, "commitUrl": url})

    def info(self, name: str, revision: str = "main") -> None:
        repository, commit = self.at(name, revision)
        if repository and commit:
            siblings = [{"rfilename": path} for path in commit.files]
            facts = {"id": name, "private": repository.private, "tags": [], "downloads": 0}
            self.send_json(facts | {"sha": commit.sha, "siblings": siblings})

    def tree(self, name: str, revision: str) -> None:
        repository, commit = self.at(name, revision)
        if repository and commit:
            entries: list[dict[str, Any]] = []
            for path, content in commit.files.items():
                entry = {"type": "file", "path": path, "size": len(content), "oid": etag(content)}
                if path in repository.large:
                    oid = hashlib.sha256(content).hexdigest()
                    entry["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 100}
                entries.append(entry)
            self.send_json(entries)

    def resolve(self, name: str, revision: str, path: str) -> None:
        repository, commit = self.at(name, revision)
        if repository and commit:
            if path not in commit.files:
                return self.refuse(404, code="EntryNotFound")
            content = commit.files[path]
            tag = hashlib.sha256(content).hexdigest() if path in repository.large else etag(content)
            self.send(content, ETag=f'"{tag}"', X_Repo_Commit=commit.sha)
        return None


def etag(content: bytes) -> str:
    """Name of a regular file in git."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


NAME = r"([\w.-]+/[\w.-]+)"
ROUTES: dict[str, Callable[..., None]] = {
    "POST /api/repos/create": Handler.create,
    "POST /api/validate-yaml": Handler.check_yaml,
    f"POST /api/models/{NAME}/preupload/main": Handler.preupload,
    f"POST /{NAME}.git/info/lfs/objects/batch": Handler.lfs_batch,
    r"PUT /lfs/(\w+)": Handler.lfs_upload,
    f"POST /api/models/{NAME}/commit/main": Handler.commit,
    f"GET /api/models/{NAME}": Handler.info,
    rf"GET /api/models/{NAME}/revision/(\w+)": Handler.info,
    rf"GET /api/models/{NAME}/tree/(\w+)": Handler.tree,
    rf"GET|HEAD /{NAME}/resolve/(\w+)/(.+)": Handler.resolve,
}


@contextmanager
def serving() -> Iterator[LocalHub]:
    """A hub that answers as long as the block lasts."""
    with LocalHub() as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        yield hub
        hub.shutdown()
