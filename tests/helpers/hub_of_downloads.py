"""Model and dataset repositories behind the part of the hub's HTTP interface that downloads use, in memory.

Each fault that a real hub has is a setting: redirects of old names, gated repositories, limits of requests,
connections that drop in the middle of a file, and revisions that are gone.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.helpers.hub_stand_in import Handler


def commit_of(revision: str) -> str:
    """The commit that a branch of these repositories stands at; a commit stands at itself."""
    if re.fullmatch("[0-9a-f]{40}", revision):
        return revision
    return hashlib.sha1(revision.encode()).hexdigest()


@dataclass
class Repository:
    """One repository.

    Attributes:
        branches: the files of each branch or tag, by path.
        is_gated: whether its files are refused until the terms are accepted.
    """

    branches: dict[str, dict[str, bytes]]
    is_gated: bool = False

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The commit and the files of a branch or of a commit; None: there is no such revision."""
        for name, files in self.branches.items():
            if revision in (name, commit_of(name)):
                return commit_of(name), files
        return None


@dataclass
class DownloadHub:
    """Repositories by kind and name (`models/a/b`), and the faults of their hub.

    Attributes:
        moved: new names by old names.
        n_limited: so many of the next requests are answered with 429, and ask to wait for
            `asks_to_wait` seconds.
        dropped: for the files of these paths, how many of the next downloads end in the middle.
        requests: what was asked for, as METHOD PATH.
    """

    repositories: dict[str, Repository]
    moved: dict[str, str] = field(default_factory=dict)
    n_limited: int = 0
    asks_to_wait: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock)

    def is_limited(self) -> bool:
        """Whether this request is one too many."""
        with self.lock:
            self.n_limited -= 1
            return self.n_limited >= 0

    def drops(self, path: str) -> bool:
        """Whether the connection ends in the middle of this file."""
        with self.lock:
            self.dropped[path] = self.dropped.get(path, 0) - 1
            return self.dropped[path] >= 0


class _Answers(Handler):
    hub: Any

    def _repository(self) -> tuple[str, Repository | None, str]:
        """What is asked for: a repository's name, the repository, and the rest of the path."""
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        kind, name, rest = _parts(path)
        key = f"{kind}/{name}"
        if self.hub.is_limited():
            self.answer(429, b"", Retry_After=str(self.hub.asks_to_wait))
        elif key in self.hub.moved:
            new = self.hub.moved[key].partition("/")[2]
            self.answer(307, b"", Location=self.path.replace(name, new, 1))
        elif key not in self.hub.repositories:
            self.answer(401, b"", X_Error_Code="RepoNotFound")  # as the hub tells strangers
        else:
            return name, self.hub.repositories[key], rest
        return name, None, rest

    def do_GET(self) -> None:
        name, repository, rest = self._repository()
        if repository is None:
            return
        what, _, below = rest.partition("/")
        revision, path = _revision_and_path(below or "main")
        found = repository.at(revision)
        if found is None:
            self.answer(404, b"", X_Error_Code="RevisionNotFound")
        elif what == "resolve" and repository.is_gated:
            self.answer(403, b"", X_Error_Code="GatedRepo", X_Error_Message=f"Access to {name} is restricted")
        elif what == "resolve":
            self._file(*found, path)
        elif what == "tree":
            self._listing(found[1], path)
        else:
            names = [{"rfilename": each} for each in found[1]]
            self.json(200, {"_id": "1", "id": name, "sha": found[0], "siblings": names, "tags": []})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"])).decode()
        _, repository, rest = self._repository()
        found = repository.at(rest.partition("/")[2]) if repository else None
        if found is not None:
            wanted = parse_qs(content).get("paths", [])
            self.json(200, [entry for entry in self.tree(found[1]) if entry["path"] in wanted])
        elif repository:
            self.answer(404, b"", X_Error_Code="RevisionNotFound")

    def _listing(self, files: dict[str, bytes], folder: str) -> None:
        """The files in a folder, and its folders unless the files below them are asked for too."""
        start = f"{folder}/" if folder else ""
        inside = {name: content for name, content in files.items() if name.startswith(start)}
        if not inside:
            self.answer(404, b"", X_Error_Code="EntryNotFound")
        elif parse_qs(urlsplit(self.path).query).get("recursive") in (["true"], ["True"]):
            self.json(200, self.tree(inside))
        else:
            tops = sorted({start + name.removeprefix(start).split("/")[0] for name in inside})
            folders = [{"type": "directory", "path": p, "oid": "0" * 40} for p in tops if p not in files]
            self.json(200, folders + self.tree({p: files[p] for p in tops if p in files}))

    def _file(self, commit: str, files: dict[str, bytes], path: str) -> None:
        if path not in files:
            self.answer(404, b"", X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
            return
        whole, begin, end = files[path], 0, len(files[path])
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked:
            begin, end = int(asked[1]), min(int(asked[2] or end) + 1, end)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(end - begin))
        if asked:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(whole)}")
        self.send_header("ETag", f'"{hashlib.sha1(whole).hexdigest()}"')
        self.send_header("X-Repo-Commit", commit)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.hub.drops(path):
            end = begin + (end - begin) // 2
            self.close_connection = True
        self.wfile.write(whole[begin:end])


def _parts(path: str) -> tuple[str, str, str]:
    """The kind of a repository, its name, and the rest of a path."""
    match = re.fullmatch(
        r"/(?:api/)?(?:(datasets|models)/)?(.*?)(?:/((?:resolve|tree|revision|paths-info)/.*))?", path
    )
    assert match is not None
    return match[1] or "models", match[2], match[3] or ""


def _revision_and_path(rest: str) -> tuple[str, str]:
    """`main/a/b` as the revision and the path; revisions like `refs/convert/parquet` have slashes."""
    match = re.fullmatch(r"(refs/\w+/\w+|[^/]+)/?(.*)", rest)
    assert match is not None
    return match[1], match[2]


@contextmanager
def serving(hub: DownloadHub) -> Iterator[str]:
    """The address under which the hub answers."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Answers, hub))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
