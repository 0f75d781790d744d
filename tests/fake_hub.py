"""A stand-in for the Hugging Face Hub on this machine: the part of its HTTP API that vistok's clients use.

It proves the shape of what the clients send and understand, not the Hub's policies: the xet transfer, size
limits and real authentication are not here.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_fake"
USER = "org"
LFS_SUFFIXES = (".safetensors", ".parquet", ".tar", ".png")
KIND = r"(?:(?P<kind>dataset|space)s/)?"
REPO = r"(?P<repo>[^/]+/[^/]+)"

Headers = dict[str, str]


@dataclass
class Commit:
    """What a repository holds after one commit, and what that commit itself brought."""

    oid: str
    files: dict[str, bytes]
    added: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    title: str = "initial commit"


@dataclass
class Repo:
    """A repository: its commits, oldest first."""

    commits: list[Commit]
    private: bool = False
    gated: bool = False

    def at(self, revision: str) -> Commit | None:
        """The commit that a revision names."""
        if revision in ("main", "HEAD"):
            return self.commits[-1]
        return next((commit for commit in self.commits if commit.oid == revision), None)


@dataclass
class Request:
    """A request as it came in."""

    method: str
    path: str
    headers: Headers
    body: bytes
    query: dict[str, list[str]] = field(default_factory=dict)

    @property
    def authorized(self) -> bool:
        """Whether it carries the token."""
        return self.headers.get("authorization") == f"Bearer {TOKEN}"


@dataclass
class Response:
    """What goes back: a status, a body (JSON where it is a list or a dictionary) and headers."""

    status: int = 200
    body: bytes | dict | list = b""
    headers: Headers = field(default_factory=dict)


class HubError(Exception):
    """An error that the Hub's clients know by its code."""

    def __init__(self, status: int, code: str):
        super().__init__(code)
        headers = {"X-Error-Code": code, "X-Error-Message": code}
        self.response = Response(status, {"error": code}, headers)


class FakeHub:
    """The server.

    Attributes:
        url: Its address, for `HF_ENDPOINT`.
        repos: Repositories by kind and id, `("model", "org/name")`.
        log: One line for each request, `"GET /path -> 200"`.
    """

    def __init__(self):
        self.repos: dict[tuple[str, str], Repo] = {}
        self.log: list[str] = []
        self._blobs: dict[str, bytes] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._routes: list[tuple[str, str, Callable]] = [
            ("GET", r"/api/whoami-v2", self._whoami),
            ("POST", r"/api/validate-yaml", self._validate_yaml),
            ("POST", r"/api/repos/create", self._create),
            ("POST", rf"/{KIND}{REPO}\.git/info/lfs/objects/batch", self._lfs_batch),
            ("PUT", r"/lfs/(?P<oid>\w+)", self._lfs_put),
            ("POST", rf"/api/(?P<kind>\w+)s/{REPO}/preupload/(?P<revision>[^/]+)", self._preupload),
            ("POST", rf"/api/(?P<kind>\w+)s/{REPO}/commit/(?P<revision>[^/]+)", self._commit),
            ("POST", rf"/api/(?P<kind>\w+)s/{REPO}/paths-info/(?P<revision>[^/]+)", self._paths_info),
            ("GET", rf"/api/(?P<kind>\w+)s/{REPO}/tree/(?P<revision>[^/]+)/?(?P<folder>.*)", self._tree),
            ("GET", rf"/api/(?P<kind>\w+)s/{REPO}/refs", self._refs),
            ("GET", rf"/api/(?P<kind>\w+)s/{REPO}(?:/revision/(?P<revision>[^/]+))?", self._info),
            ("GET", rf"/{KIND}{REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", self._resolve),
        ]

    def start(self) -> None:
        """Serves from a thread of its own."""
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Ends the thread and closes the port."""
        self._server.shutdown()
        self._server.server_close()

    def commits(self, repo_id: str) -> list[Commit]:
        """The commits of a model's repository after the one that made it."""
        return self.repos["model", repo_id].commits[1:]

    def answer(self, request: Request) -> Response:
        """The response to a request; also kept in the log."""
        try:
            response = self._route(request)
        except HubError as error:
            response = error.response
        self.log.append(f"{request.method} {request.path} -> {response.status}")
        return response

    def _route(self, request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        writes = method != "GET" and not request.path.startswith(("/lfs/", "/api/validate-yaml"))
        if writes and not request.path.count("/paths-info/") and not request.authorized:
            raise HubError(401, "Unauthorized")
        for routed_method, pattern, handle in self._routes:
            match = re.fullmatch(pattern, request.path)
            if match and routed_method == method:
                return handle(request, **match.groupdict())
        raise HubError(404, "NotOffered")

    def _whoami(self, request: Request) -> Response:
        if not request.authorized:
            raise HubError(401, "Unauthorized")
        access = {"type": "access_token", "accessToken": {"role": "write", "displayName": "test"}}
        return Response(body={"name": USER, "type": "user", "orgs": [], "auth": access})

    def _validate_yaml(self, request: Request) -> Response:
        return Response(body={"errors": [], "warnings": []})

    def _create(self, request: Request) -> Response:
        wanted = json.loads(request.body)
        repo_id = f"{wanted.get('organization') or USER}/{wanted['name']}"
        kind = wanted.get("type") or "model"
        url = f"{self.url}/{'' if kind == 'model' else kind + 's/'}{repo_id}"
        if (kind, repo_id) in self.repos:
            return Response(409, {"error": "You already created this repo", "url": url})
        first = Commit(_sha1(repo_id.encode()), {".gitattributes": b""})
        private = wanted.get("visibility") == "private" or wanted.get(
            "private", False
        )  # newer or older client
        self.repos[kind, repo_id] = Repo([first], private)
        return Response(body={"url": url, "name": repo_id, "id": "0" * 24})

    def _preupload(self, request: Request, kind: str, repo: str, revision: str) -> Response:
        self._find(request, kind, repo, revision)
        files = [
            {
                "path": file["path"],
                "shouldIgnore": False,
                "oid": None,
                "uploadMode": "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular",
            }
            for file in json.loads(request.body)["files"]
        ]
        return Response(body={"files": files})

    def _lfs_batch(self, request: Request, kind: str | None, repo: str) -> Response:
        self._find(request, kind, repo)
        objects = []
        for blob in json.loads(request.body)["objects"]:
            answer = {"oid": blob["oid"], "size": blob["size"], "authenticated": True}
            if blob["oid"] not in self._blobs:
                answer["actions"] = {"upload": {"href": f"{self.url}/lfs/{blob['oid']}", "header": {}}}
            objects.append(answer)
        return Response(body={"transfer": "basic", "objects": objects})

    def _lfs_put(self, request: Request, oid: str) -> Response:
        if hashlib.sha256(request.body).hexdigest() != oid:
            raise HubError(400, "WrongHash")
        self._blobs[oid] = request.body
        return Response()

    def _commit(self, request: Request, kind: str, repo: str, revision: str) -> Response:
        before = self._find(request, kind, repo, revision)
        after = Commit("", dict(before.files))
        for line in request.body.splitlines():
            operation = json.loads(line)
            self._apply(after, operation["key"], operation["value"])
        history = self.repos[kind, repo].commits
        after.oid = _sha1(f"{before.oid} {len(history)}".encode())
        history.append(after)
        url = f"{self.url}/{repo}/commit/{after.oid}"
        return Response(body={"success": True, "commitOid": after.oid, "commitUrl": url})

    def _apply(self, commit: Commit, key: str, value: dict) -> None:
        if key == "header":
            commit.title = value["summary"]
        elif key in ("file", "lfsFile"):
            content = base64.b64decode(value["content"]) if key == "file" else self._blobs[value["oid"]]
            commit.files[value["path"]] = content
            commit.added.add(value["path"])
        elif key == "deletedFile":
            commit.files.pop(value["path"])
            commit.deleted.add(value["path"])
        else:
            raise HubError(400, f"NotOffered: {key}")

    def _info(self, request: Request, kind: str, repo: str, revision: str | None) -> Response:
        commit = self._find(request, kind, repo, revision)
        known = self.repos[kind, repo]
        moment = "2026-01-01T00:00:00.000Z"
        info = {
            **{"_id": "0" * 24, "id": repo, "modelId": repo, "author": repo.split("/")[0], "sha": commit.oid},
            **{"private": known.private, "gated": "manual" if known.gated else False, "disabled": False},
            **{"downloads": 0, "likes": 0, "tags": [], "lastModified": moment, "createdAt": moment},
            "siblings": [{"rfilename": path, "size": len(data)} for path, data in commit.files.items()],
        }
        return Response(body=info)

    def _tree(self, request: Request, kind: str, repo: str, revision: str, folder: str) -> Response:
        files = self._find(request, kind, repo, revision).files
        prefix = f"{folder}/" if folder else ""
        inside = [path for path in files if path.startswith(prefix)]
        if folder and not inside:
            raise HubError(404, "EntryNotFound")
        folders = {path[: place.start()] for path in inside for place in re.finditer("/", path)}
        entries = [_entry(path, files[path]) for path in inside]
        entries += [_entry(path, None) for path in sorted(folders) if path.startswith(prefix)]
        if request.query.get("recursive", ["false"])[0].lower() != "true":
            entries = [entry for entry in entries if "/" not in entry["path"].removeprefix(prefix)]
        return Response(body=entries)

    def _paths_info(self, request: Request, kind: str, repo: str, revision: str) -> Response:
        files = self._find(request, kind, repo, revision).files
        wanted = json.loads(request.body)["paths"]
        entries = [_entry(path, files[path]) for path in wanted if path in files]
        entries += [
            _entry(path, None) for path in wanted if any(file.startswith(f"{path}/") for file in files)
        ]
        return Response(body=entries)

    def _refs(self, request: Request, kind: str, repo: str) -> Response:
        commit = self._find(request, kind, repo)
        main = {"name": "main", "ref": "refs/heads/main", "targetCommit": commit.oid}
        return Response(body={"branches": [main], "tags": [], "converts": []})

    def _resolve(self, request: Request, kind: str | None, repo: str, revision: str, path: str) -> Response:
        commit = self._find(request, kind, repo, revision)
        if self.repos[kind or "model", repo].gated:
            raise HubError(403 if request.authorized else 401, "GatedRepo")
        if path not in commit.files:
            raise HubError(404, "EntryNotFound")
        data = commit.files[path]
        headers = {
            "ETag": f'"{_sha1(data)}"',
            "X-Repo-Commit": commit.oid,
            "X-Linked-Size": str(len(data)),
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
        }
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
        if not part:
            return Response(body=data, headers=headers)
        first, last = int(part[1]), min(int(part[2] or len(data)), len(data) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        return Response(206, data[first : last + 1], headers)

    def _find(self, request: Request, kind: str | None, repo: str, revision: str | None = None) -> Commit:
        known = self.repos.get((kind or "model", repo))
        if known is None or (known.private and not request.authorized):
            raise HubError(404 if request.authorized else 401, "RepoNotFound")
        commit = known.at(revision or "main")
        if commit is None:
            raise HubError(404, "RevisionNotFound")
        return commit


def _sha1(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


def _entry(path: str, data: bytes | None) -> dict:
    if data is None:
        return {"type": "directory", "path": path, "oid": "0" * 40, "size": 0}
    return {"type": "file", "path": path, "oid": _sha1(data), "size": len(data)}


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            """Says nothing: the hub keeps its own log."""

        def answer(self):
            address = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            path, query = unquote(address.path), parse_qs(address.query)
            response = hub.answer(Request(self.command, path, headers, self.read_body(), query))
            body = response.body
            if isinstance(body, dict | list):
                body = json.dumps(body).encode()
                response.headers["Content-Type"] = "application/json"
            self.send_response(response.status)
            for name, value in {**response.headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def read_body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer  # noqa: N815  the names that http.server calls

    return Handler
