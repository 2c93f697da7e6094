"""What the tests of the Hub commit."""

from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi

REPO = "lab/mouse"
WEIGHTS = bytes(range(256)) * 8


def add(files: dict[str, bytes]) -> list[CommitOperationAdd]:
    return [CommitOperationAdd(path, data) for path, data in files.items()]


def commit(api: HfApi, files: dict[str, bytes], message: str = "step", **rest: str | None) -> CommitInfo:
    return api.create_commit(REPO, add(files), commit_message=message, **rest)
