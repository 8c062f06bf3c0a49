"""A small Hugging Face hub on 127.0.0.1: the requests that huggingface_hub sends for a model repository.

Files that end with .zip are in LFS: a request for one is redirected to another host name, as the hub does it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from servers import listening

TOKEN = "hf_of_ann_0123456789"


@dataclass
class Repo:
    """A model repository: the files of its commits, and which commit a branch or tag means."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], *names: str) -> str:
        sha = hashlib.sha1(f"{len(self.commits)} {sorted(files)}".encode()).hexdigest()
        self.commits[sha] = dict(files)
        self.refs |= dict.fromkeys(("main", *names), sha)
        return sha

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[self.refs["main"]]


@dataclass
class Hub:
    """What it has, and how it misbehaves."""

    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    uploaded: dict[str, bytes] = field(default_factory=dict)
    drop_after: list[int] = field(default_factory=list)
    """Bytes of each download before the connection is cut; then no more cuts."""
    ranges: bool = True
    swap: dict[str, bytes] = field(default_factory=dict)
    """Files that are sent in place of those that are listed."""
    extra: bytes = b""
    """Sent behind each file, without a length."""
    status: dict[str, int] = field(default_factory=dict)
    """Beginning of a path -> the answer to all requests of it."""
    body: bytes = b""
    """The answer to every request of the API, if not empty."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of each request."""
    ranges_asked: list[str] = field(default_factory=list)
    """Range of each download."""
    cdn_tokens: list[str] = field(default_factory=list)
    """Authorization of requests to the other host."""

    def repo(self, name: str, files: dict[str, bytes], *names: str, **how: bool) -> str:
        """Adds a commit to a repository; returns its hash."""
        repo = self.repos.setdefault(name, Repo(**how))
        return repo.commit(files, *names)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """Nothing: clients leave when they like, as the one that sees whether somebody listens."""


@contextmanager
def hub_serving() -> Iterator[Hub]:
    hub = Hub()
    with listening(_Server(("127.0.0.1", 0), _handler(hub))) as hub.url:
        yield hub


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            path = self._begin()
            if path is None:
                return None
            if path.startswith("/cdn/"):
                hub.cdn_tokens.append(self.headers.get("Authorization", ""))
                _, _, sha, name = path.split("/", 3)
                return self._send_file(self._content(sha, name), name)
            if path.startswith("/api/models/"):
                owner, name, *rest = path.removeprefix("/api/models/").split("/", 3)
                return self._info(f"{owner}/{name}", rest[1] if len(rest) == 2 else "main")
            owner, name, _, revision, file = path[1:].split("/", 4)
            repo = self._repo(f"{owner}/{name}")
            if repo is None:
                return None
            sha = repo.refs.get(revision, revision)
            if file not in repo.commits.get(sha, {}):
                return self._refuse(404, "EntryNotFound")
            if file.endswith(".zip"):
                self.send_response(302)
                self.send_header("Location", f"{hub.url.replace('127.0.0.1', 'localhost')}/cdn/{sha}/{file}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            return self._send_file(repo.commits[sha][file], file)

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = self._begin()
            if path is None:
                return None
            if path == "/api/validate-yaml":
                return self._answer({"errors": [], "warnings": []})
            if not self._knows_token():
                return self._refuse(401, "")
            if path == "/api/repos/create":
                asked = json.loads(body)
                name = f"{asked['organization']}/{asked['name']}"
                private = asked.get("visibility") == "private" or asked.get("private") is True
                hub.repos.setdefault(name, Repo(private=private)).commit({".gitattributes": b"*.zip filter=lfs\n"})
                return self._answer({"url": f"{hub.url}/{name}", "name": name})
            if path.endswith(".git/info/lfs/objects/batch"):
                objects = [
                    {**one, "actions": {"upload": {"href": f"{hub.url}/lfs/{one['oid']}", "header": {}}}}
                    for one in json.loads(body)["objects"]
                ]
                return self._answer({"transfer": "basic", "objects": objects})
            owner, name, what, _ = path.removeprefix("/api/models/").split("/", 3)
            repo = self._repo(f"{owner}/{name}")
            if repo is None:
                return None
            if what == "preupload":
                files = [
                    {
                        "path": one["path"],
                        "uploadMode": "lfs" if one["path"].endswith(".zip") else "regular",
                        "shouldIgnore": False,
                    }
                    for one in json.loads(body)["files"]
                ]
                return self._answer({"files": files})
            return self._commit(repo, f"{owner}/{name}", [json.loads(line) for line in body.splitlines()])

        def do_PUT(self):
            data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = self._begin()
            if path is not None:
                hub.uploaded[path.rpartition("/")[2]] = data
                self._answer({})

        def _commit(self, repo: Repo, name: str, lines: list) -> None:
            header = lines[0]["value"]
            if header.get("parentCommit", repo.refs["main"]) != repo.refs["main"]:
                return self._refuse(412, "")
            files = dict(repo.files)
            for line in lines[1:]:
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = hub.uploaded[value["oid"]]
                else:
                    assert line["key"] == "deletedFile"
                    del files[value["path"]]
            sha = repo.commit(files)
            return self._answer({"commitUrl": f"{hub.url}/{name}/commit/{sha}", "commitOid": sha})

        def _info(self, name: str, revision: str) -> None:
            repo = self._repo(name)
            if repo is None:
                return None
            sha = repo.refs.get(revision, revision)
            if sha not in repo.commits:
                return self._refuse(404, "RevisionNotFound")
            siblings = [_sibling(*one) for one in repo.commits[sha].items()]
            facts = {"_id": "1", "id": name, "modelId": name, "sha": sha, "private": repo.private}
            return self._answer({**facts, "siblings": siblings, "tags": [], "downloads": 0, "likes": 0})

        def _begin(self) -> str | None:
            """The path of a request; None if it is answered already."""
            path = unquote(urlsplit(self.path).path)
            hub.asked.append((self.command, path))
            for beginning, status in hub.status.items():
                if path.startswith(beginning):
                    self._refuse(status, "")
                    return None
            if hub.body and path.startswith("/api/"):
                self._send(200, hub.body)
                return None
            return path

        def _repo(self, name: str) -> Repo | None:
            repo = hub.repos.get(name)
            if self.headers.get("Authorization") and not self._knows_token():
                self._refuse(401, "", "Invalid credentials in Authorization header")
            elif repo is None or (repo.private and not self._knows_token()):
                self._refuse(404 if self._knows_token() else 401, "RepoNotFound")
            elif repo.gated and not self._knows_token():
                self._refuse(401, "GatedRepo")
            else:
                return repo
            return None

        def _knows_token(self) -> bool:
            return self.headers.get("Authorization") == f"Bearer {TOKEN}"

        def _content(self, sha: str, name: str) -> bytes:
            return next(repo.commits[sha][name] for repo in hub.repos.values() if sha in repo.commits)

        def _send_file(self, data: bytes, name: str) -> None:
            data = hub.swap.get(name, data)
            wanted = self.headers.get("Range", "")
            hub.ranges_asked.append(wanted)
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and hub.ranges else 0
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            if not hub.extra:
                self.send_header("Content-Length", str(len(data) - start))
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("Connection", "close")
            self.end_headers()
            cut = hub.drop_after.pop(0) if hub.drop_after else len(data)
            self.wfile.write(data[start : start + cut] + hub.extra)
            self.close_connection = True

        def _answer(self, content: object) -> None:
            self._send(200, json.dumps(content).encode())

        def _refuse(self, status: int, code: str, message: str = "") -> None:
            self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": message})

        def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                if value:
                    self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    return Handler


def _sibling(name: str, data: bytes) -> dict:
    facts: dict = {"rfilename": name, "size": len(data), "blobId": hashlib.sha1(data).hexdigest()}
    if name.endswith(".zip"):
        facts["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return facts
