"""A Hub for a test: started, spoken to, stopped."""

import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, constants

from tests.hubserver.serving import Server

TOKEN = "hf_of_a_test"
HERE = Path(__file__).parents[2]


class Hub(AbstractContextManager["Hub"]):
    """A Hub that runs while the block lasts. Its repositories are in `root`, and stay there.

    Args:
        root: any folder.
        process: run it in a process of its own, not in a thread of this one.
        settings: see `tests/hubserver/settings.py`.
    """

    def __init__(
        self, root: Path, *, process: bool = False, port: int = 0, token: str = TOKEN, **settings: Any
    ) -> None:
        self.root, self.token, self.settings = root, token, settings
        self.url = ""
        self._apart, self._port = process, port
        self._server: Server | None = None
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "Hub":
        if self._apart:
            command = [sys.executable, "-m", "tests.hubserver", "--root", str(self.root), "--port", str(self._port)]
            self._process = subprocess.Popen(
                [*command, "--token", self.token], stdout=subprocess.PIPE, text=True, cwd=HERE
            )
            assert self._process.stdout is not None
            self.url = self._process.stdout.readline().strip()
            assert self.url, "the server did not start"
        else:
            self._server = Server(self.root, self._port, self.token)
            self._thread = threading.Thread(target=self._server.run, daemon=True)
            self._thread.start()
            self.url = self._server.url
        self._port = int(self.url.rpartition(":")[2])
        self.change(**self.settings)
        return self

    def __exit__(self, *_: object) -> None:
        if self._server and self._thread:
            self._server.stop()
            self._thread.join()
        if self._process:
            self._process.terminate()
            self._process.communicate(timeout=30)
        self._server = self._thread = self._process = None

    def restart(self) -> None:
        """Stop it, and start it again at the same address with what it has on disk."""
        self.__exit__()
        self.__enter__()

    @property
    def api(self) -> HfApi:
        """The client, with the token."""
        return HfApi(endpoint=self.url, token=self.token)

    def environment(self, home: Path) -> dict[str, str]:
        """Variables for a process that uses this Hub, set before it imports `huggingface_hub`.

        Args:
            home: a folder for its cache.
        """
        switches = ("TELEMETRY", "PROGRESS_BARS", "XET", "UPDATE_CHECK")
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_TOKEN": self.token,
            "NO_PROXY": "127.0.0.1,localhost",
            **{f"HF_HUB_DISABLE_{name}": "1" for name in switches},
        }

    def control(self, method: str, what: str, data: object = None) -> Any:
        """Speak to the server itself: see `tests/hubserver/routes/control.py`."""
        body = None if data is None else json.dumps(data).encode()  # one that nobody reads would reset the connection
        request = urllib.request.Request(f"{self.url}/_control/{what}", body, method=method)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
            return json.load(answer)

    def change(self, **settings: Any) -> None:
        """Change settings by name, from now on and after a restart."""
        self.settings |= settings
        if settings:
            self.control("POST", "settings", settings)

    def fail(self, kind: str, route: str = "*", **rest: Any) -> None:
        """Let requests fail: see `tests/hubserver/faults.py`."""
        self.control("POST", "faults", [{"kind": kind, "route": route, **rest}])

    def fail_by_chance(self, seed: int, routes: dict[str, float], **rest: Any) -> None:
        """The same by chance, with a probability for each route."""
        self.control("POST", "chance", {"seed": seed, "routes": routes, **rest})

    @property
    def faults(self) -> list[dict[str, Any]]:
        """The faults that wait for their request."""
        return self.control("GET", "faults")

    def heal(self) -> None:
        """Forget all faults."""
        self.control("DELETE", "faults")

    def advance(self, seconds: float) -> None:
        """Put its clock forward."""
        self.control("POST", "clock", {"advance": seconds})

    @property
    def requests(self) -> list[dict[str, Any]]:
        """All requests since the start, or since `forget`: see `Record` in `tests/hubserver/application.py`."""
        return self.control("GET", "requests")

    def forget(self) -> None:
        """Empty the log."""
        self.control("DELETE", "requests")

    def asked(self, route: str) -> list[dict[str, Any]]:
        """The requests of one route."""
        return [row for row in self.requests if row["route"] == route]


def use(monkeypatch: pytest.MonkeyPatch, url: str, cache: Path, token: str = TOKEN) -> None:
    """Let the Hub's client, in this process, use this address, an empty cache and plain HTTP."""
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch, place: Path, folders: Mapping[str, Path]) -> Iterator[Hub]:
    """A Hub that serves these folders as repositories to the client in this process, while the block lasts.

    Args:
        place: a folder for the Hub and for the client's cache.
    """
    with Hub(place / "hub") as hub:
        use(monkeypatch, hub.url, place / "cache")
        for repo, folder in folders.items():
            hub.api.create_repo(repo)
            hub.api.upload_folder(repo_id=repo, folder_path=folder)
        hub.forget()
        yield hub
