"""A Hub on this machine: serves the files of folders as the Hugging Face Hub does, and counts what it is asked for."""

import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serving(folders: Mapping[str, Path], status: int = 200, root: int | None = None) -> Iterator[tuple[str, list[str]]]:
    """(address, paths that were asked for) of a Hub with these repositories, while the block lasts.

    Args:
        status: what it answers to every question, if not 200.
        root: what it answers at its root, if something else.
    """
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            asked.append(self.path)
            repo, _, file = self.path.strip("/").partition("/resolve/")
            path = folders[repo] / file.partition("/")[2] if repo in folders else None
            known = repo in folders
            found = status if status != 200 else 200 if path is not None and path.is_file() else 404
            found = root if root is not None and self.path == "/" else found
            data = path.read_bytes() if path is not None and found == 200 else b""
            self.send_response(found)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def use(monkeypatch: pytest.MonkeyPatch, address: str, cache: Path) -> None:
    """Let the Hub's client, in this process, use this address and an empty cache."""
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
