"""A stand-in for the Hugging Face hub: serves folders OWNER/NAME below a root, at one commit each."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REVISIONS = ("main", "v1", COMMIT)


@contextmanager
def serving(root: Path) -> Iterator[str]:
    """The address of a hub on this machine."""

    class Handler(Hub):
        folder = root

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class Hub(BaseHTTPRequestHandler):
    """What snapshot_download asks for: a revision's commit, the list of its files, and each file."""

    folder: Path

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        for pattern, answer in (
            (r"/api/models/([\w-]+/[\w-]+)/revision/(\w+)", self._revision),
            (r"/api/models/([\w-]+/[\w-]+)/tree/(\w+).*", self._tree),
            (r"/([\w-]+/[\w-]+)/resolve/(\w+)/(.+)", self._file),
        ):
            found = re.fullmatch(pattern, path)
            if found and (self.folder / found[1]).is_dir():
                return answer(*found.groups())
        return self._send(b"{}", 404, {"X-Error-Code": "RepoNotFound"})

    def _revision(self, repo: str, revision: str) -> None:
        if revision not in REVISIONS:
            return self._send(b"{}", 404, {"X-Error-Code": "RevisionNotFound"})
        return self._json({"id": repo, "sha": COMMIT, "siblings": [{"rfilename": name} for name in self._names(repo)]})

    def _tree(self, repo: str, revision: str) -> None:
        files = {name: self.folder / repo / name for name in self._names(repo)}
        self._json([{"type": "file", "path": n, "size": f.stat().st_size, "oid": _oid(f)} for n, f in files.items()])

    def _file(self, repo: str, revision: str, name: str) -> None:
        file = self.folder / repo / name
        if not file.is_file():
            return self._send(b"", 404, {"X-Error-Code": "EntryNotFound"})
        return self._send(file.read_bytes(), 200, {"ETag": f'"{_oid(file)}"', "X-Repo-Commit": COMMIT})

    def _names(self, repo: str) -> list[str]:
        root = self.folder / repo
        return sorted(str(file.relative_to(root)) for file in root.rglob("*") if file.is_file())

    def _json(self, value: Any) -> None:
        self._send(json.dumps(value).encode(), 200, {"Content-Type": "application/json"})

    def _send(self, body: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr."""


def _oid(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()
