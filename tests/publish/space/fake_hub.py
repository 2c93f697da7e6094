"""The Hub as `prisma space` uses it, in memory: repositories of Spaces, their stages, and what it refuses."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.errors import HfHubHTTPError


def refusal(status: int, words: str = "no", token: str = "hf_secretsecretsecret") -> HfHubHTTPError:
    """An error of the client, whose request holds a token."""
    from huggingface_hub.utils._http import httpx2 as http

    request = http.Request("POST", "https://hub.test/api", headers={"authorization": f"Bearer {token}"})
    return HfHubHTTPError(words, response=http.Response(status, request=request), server_message=words)


@dataclass
class FakeHub:
    """One Space at most, and the models that are asked for."""

    stages: list[str] = field(default_factory=lambda: ["RUNNING"])  # what is answered next; the last one stays
    app: str = "127.0.0.1:1"
    raw: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b"", "style.css": b"old"})
    private: bool | None = None  # None: there is no Space
    hardware: str | None = None
    commits: list[list[str]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    refuses: dict[str, HfHubHTTPError] = field(default_factory=dict)
    models: dict[str, Any] = field(default_factory=dict)

    @property
    def head(self) -> str:
        return hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()

    def __call__(self) -> "FakeHub":
        return self  # in the place of the class HfApi

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name in self.refuses:
            raise self.refuses[name]

    def create_repo(self, repo: str, *, private: bool, space_hardware: str | None, **how: Any) -> str:
        self._called("create_repo")
        assert how["exist_ok"] and how["repo_type"] == "space"
        if self.private is None:
            self.private, self.hardware = private, space_hardware
        return f"https://hub.test/spaces/{repo}"

    def space_info(self, repo: str) -> Any:
        self._called("space_info")
        return SimpleNamespace(sha=self.head, private=self.private, sdk="gradio", host=f"https://{self.app}")

    def list_repo_tree(self, repo: str, **how: Any) -> Any:
        self._called("list_repo_tree")
        for name, content in self.files.items():
            git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            large = SimpleNamespace(sha256=hashlib.sha256(content).hexdigest())
            yield SimpleNamespace(path=name, blob_id=git, lfs=large if name.endswith(".safetensors") else None)
        yield SimpleNamespace(path="prisma", tree_id="0")

    def create_commit(self, repo: str, operations: Any, *, parent_commit: str, **how: Any) -> Any:
        self._called("create_commit")
        assert parent_commit == self.head and how["repo_type"] == "space"
        for operation in operations:
            if isinstance(operation, CommitOperationDelete):
                del self.files[operation.path_in_repo]
            else:
                assert isinstance(operation, CommitOperationAdd)
                source = operation.path_or_fileobj
                content = source if isinstance(source, bytes) else Path(str(source)).read_bytes()
                self.files[operation.path_in_repo] = content
        self.commits.append([operation.path_in_repo for operation in operations])
        return SimpleNamespace(oid=self.head)

    def get_space_runtime(self, repo: str) -> Any:
        self._called("get_space_runtime")
        stage = self.stages.pop(0) if len(self.stages) > 1 else self.stages[0]
        return SimpleNamespace(stage=stage, hardware=self.hardware, requested_hardware=self.hardware, raw=self.raw)

    def restart_space(self, repo: str) -> None:
        self._called("restart_space")

    def request_space_hardware(self, repo: str, hardware: str) -> None:
        self._called("request_space_hardware")
        self.hardware = hardware

    def update_repo_settings(self, repo: str, *, visibility: str, **how: Any) -> None:
        self._called("update_repo_settings")
        self.private = visibility == "private"

    def model_info(self, repo: str, *, revision: str | None) -> Any:
        self._called("model_info")
        if repo not in self.models:
            raise refusal(404, "Repository not found")
        return SimpleNamespace(**self.models[repo])
