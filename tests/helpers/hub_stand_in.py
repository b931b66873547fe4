"""One dataset repository behind the part of the hub's HTTP interface that publishing uses, in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

NAME = "somebody/board"


class Hub:
    """Commits as a list of (sha, files); the last one is the branch.

    Attributes:
        before_commit: called once, ahead of the first commit: where another publisher comes in between.
        tokens: what stood in the Authorization headers.
        n_limited: so many of the next requests are answered with 429.
        refused: how many commits were refused because their parent was no longer the latest.
    """

    def __init__(self) -> None:
        self.commits: list[tuple[str, dict[str, bytes]]] = [(40 * "0", {".gitattributes": b""})]
        self.before_commit: Callable[[], object] | None = None
        self.tokens: set[str | None] = set()
        self.refused = 0
        self.n_limited = 0
        self.address = ""
        self.lock = threading.Lock()

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1][1]

    def at(self, revision: str) -> tuple[str, dict[str, bytes]]:
        return next((c for c in self.commits if c[0] == revision), self.commits[-1])

    def commit(self, lines: list[dict[str, Any]]) -> tuple[int, dict[str, Any]]:
        callback, self.before_commit = self.before_commit, None
        if callback:
            callback()
        with self.lock:
            if lines[0]["value"].get("parentCommit") != self.commits[-1][0]:
                self.refused += 1
                return 412, {"error": "A commit has happened since. Please refresh and try again."}
            files = dict(self.files)
            for line in lines[1:]:
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                else:
                    assert line["key"] == "deletedFile"
                    del files[value["path"]]
            sha = hashlib.sha1(str(len(self.commits)).encode()).hexdigest()
            self.commits.append((sha, files))
        return 200, {"commitUrl": f"{self.address}/datasets/{NAME}/commit/{sha}", "commitOid": sha}


class Handler(BaseHTTPRequestHandler):
    """The answers of the hub."""

    protocol_version = "HTTP/1.1"

    def __init__(self, hub: Hub, *given: Any):
        self.hub = hub
        super().__init__(*given)  # which answers the request

    def log_message(self, *words: object) -> None:
        pass

    def answer(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def json(self, status: int, value: object) -> None:
        self.answer(status, json.dumps(value).encode(), Content_Type="application/json")

    def is_limited(self) -> bool:
        """Answer with 429, if this request is one too many."""
        with self.hub.lock:
            self.hub.n_limited -= 1
        if limited := self.hub.n_limited >= 0:
            self.answer(429, b"", Retry_After="0")
        return limited

    def do_GET(self) -> None:
        self.hub.tokens.add(self.headers.get("Authorization"))
        if self.is_limited():
            return
        path = unquote(urlsplit(self.path).path)
        if found := re.fullmatch(rf"/datasets/{NAME}/resolve/(\w+)/(.+)", path):
            self.one_file(*self.hub.at(found[1]), found[2])
        elif found := re.fullmatch(rf"/api/datasets/{NAME}/tree/(\w+)", path):
            self.json(200, self.tree(self.hub.at(found[1])[1]))
        elif found := re.fullmatch(rf"/api/datasets/{NAME}(?:/revision/(\w+))?", path):
            sha, files = self.hub.at(found[1] or "main")
            names = [{"rfilename": name} for name in files]
            self.json(200, {"_id": "1", "id": NAME, "sha": sha, "siblings": names, "tags": []})
        else:
            self.answer(404, b"", X_Error_Code="RepoNotFound")

    do_HEAD = do_GET

    def one_file(self, sha: str, files: dict[str, bytes], name: str) -> None:
        if name in files:
            etag = f'"{hashlib.sha1(files[name]).hexdigest()}"'
            self.answer(200, files[name], ETag=etag, X_Repo_Commit=sha)
        else:
            self.answer(404, b"", X_Error_Code="EntryNotFound")

    def tree(self, files: dict[str, bytes]) -> list[dict[str, Any]]:
        return [
            {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            for name, content in files.items()
        ]

    def do_POST(self) -> None:
        self.hub.tokens.add(self.headers.get("Authorization"))
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self.is_limited():
            return
        if self.path.startswith(f"/api/datasets/{NAME}/preupload/"):
            names = [file["path"] for file in json.loads(content)["files"]]
            modes = [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]
            self.json(200, {"files": modes})
        elif self.path.startswith(f"/api/datasets/{NAME}/commit/"):
            self.json(*self.hub.commit([json.loads(line) for line in content.splitlines()]))
        elif self.path == "/api/validate-yaml":
            self.json(200, {"errors": [], "warnings": []})
        else:
            self.answer(404, b"", X_Error_Code="RepoNotFound")


@contextmanager
def serving(hub: Hub) -> Iterator[str]:
    """The address under which the hub answers."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, hub))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub.address
    finally:
        server.shutdown()
        server.server_close()
