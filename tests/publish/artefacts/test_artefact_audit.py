"""Whatever is changed in a published data set or tuned lens is found, in a folder hub and on the Hub."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from safetensors.torch import save_file

from prisma.analysis.lens.tuned_lens import CONFIG, WEIGHTS
from prisma.checkpoint import read_tensors
from prisma.data import task
from prisma.publish import audit, publish
from prisma.publish.artefacts.artefact import ArtefactManifest, content_id
from prisma.publish.artefacts.dataset import file_of
from prisma.publish.artefacts.kinds import KINDS
from prisma.publish.artefacts.parquet import to_parquet
from prisma.publish.commits import Commit, File
from prisma.publish.folder_hub import FolderHub
from prisma.repository import ARTEFACT, DATASET, MAIN, Published
from tests.hubserver.running import Hub
from tests.publish.keys import pair

DATA, LENS = "circle-7", "lab/tiny-lens"
SET = f"lab/{DATA}"
Files = dict[str, bytes]


class Folder:
    """An artefact in a folder hub, which its owner may change."""

    def __init__(self, hub: Path, repo: str, kind: str) -> None:
        self.published = Published(repo, hub, kind=kind)
        self.writer = FolderHub(self.published)

    def files(self) -> Files:
        commit = self.writer.labels()[MAIN]
        return {name: (self.published.snapshot(commit) / name).read_bytes() for name in self.writer.read_back(commit)}

    def serve(self, files: Files) -> None:
        with self.writer.writing():
            self.writer.put(MAIN, Commit(tuple(File.of(name, data) for name, data in files.items())), "")


def fitted(files: Files, change: Callable[[dict[str, Any]], object] = lambda values: None, kind: str = "") -> Files:
    """What a careful forger does: the manifest and the card fit the files."""
    values = json.loads(files[ARTEFACT])
    change(values)
    found = KINDS[values["kind"]]
    card = found.render(SET if values["kind"] == DATASET else LENS, values["about"]).encode()
    own = {**{name: data for name, data in files.items() if name != ARTEFACT}, "README.md": card}
    records = tuple(File.of(name, data).record for name, data in own.items())
    manifest = ArtefactManifest(values["kind"], content_id(records), values["about"], records)
    return {**own, ARTEFACT: manifest.to_json()}


@pytest.fixture
def data_set(tmp_path: Path) -> Folder:
    publish(f"task:{DATA}", SET, tmp_path / "hub")
    return Folder(tmp_path / "hub", SET, DATASET)


def problems(folder: Folder, *, deep: bool = False, key: Path | None = None) -> list[str]:
    name = folder.published.repo if folder.published.kind != DATASET else f"datasets/{folder.published.repo}"
    return [finding.problem for finding in audit(name, folder.published.hub, deep, key=key)]


def test_what_an_owner_may_do_to_a_data_set_is_found(data_set: Folder) -> None:
    files, card = data_set.files(), "README.md"
    assert problems(data_set) == problems(data_set, deep=True) == []
    train = file_of("train")
    for changed, words in (
        ({**files, card: files[card].replace(b"mit", b"gpl")}, "expected README.md as its data renders"),
        ({**files, train: files[file_of("test")]}, f"expected {train} of"),
        ({name: data for name, data in files.items() if name != train}, f"expected a file {train}"),
        ({**files, "evil.py": b"1"}, "a program"),
        ({**files, "notes.txt": b"1"}, "expected only the files of the manifest; found notes.txt"),
        ({name: data for name, data in files.items() if name != ARTEFACT}, f"expected {ARTEFACT}, which Prisma"),
        ({**files, ARTEFACT: b"{}"}, "expected the manifest of an artefact"),
        (fitted({**files, "data/more.csv": b"1"}), f"expected the files README.md, {file_of('test')}, {train} in"),
        ({**files, ARTEFACT: files[ARTEFACT].replace(b'"id": "', b'"id": "0')}, "which is a hash of its files"),
        (fitted(files, lambda v: v["about"].update(more=1)), f"in about of {ARTEFACT}; found more"),
        (fitted(files, lambda v: v["about"].update(command="rm")), "found others of command"),
        (fitted(files, lambda v: v["about"]["factors"][0].update(words="x")), "expected the factors of the task"),
        ({**files, ARTEFACT: files[ARTEFACT].replace(b'"dataset"', b'"tuned-lens"')}, "found it in a dataset's"),
        (fitted(files, lambda v: v["about"].update(task="circle-77777")), "expected a task whose data Prisma"),
        (fitted(files, lambda v: v["about"].update(sha256="0" * 64)), "expected data of hash"),
        (fitted(files, lambda v: v["about"]["classes"][0].__setitem__(0, "zero")), "expected the classes of the task"),
    ):
        data_set.serve(changed)
        assert any(words in problem for problem in problems(data_set)), words


def test_deep_compares_the_data_with_the_task(data_set: Folder) -> None:
    """Files that fit the manifest and the card, and are of another task, or have other factors."""
    files, data = data_set.files(), task(DATA)
    test = data.splits["test"]
    factors = {**test.factors, "first": test.factors["first"].flip(0)}
    for split, words in (
        (
            type(test)(test.images.flip(3), test.labels, None, test.factors),
            "expected images, labels, masks and objects of hash",
        ),
        (type(test)(test.images, test.labels, None, factors), "expected the factors of the task"),
    ):
        data_set.serve(fitted({**files, file_of("test"): to_parquet(data, split)}))
        assert problems(data_set) == []
        assert any(words in problem for problem in problems(data_set, deep=True))
    data_set.serve(fitted({**files, file_of("test"): b"PAR1"}))
    assert any("expected a split of the task" in problem for problem in problems(data_set, deep=True))
    data_set.serve(fitted(files, lambda values: values["about"]["classes"][0].__setitem__(0, "x")))
    assert any("found others of classes" in problem for problem in problems(data_set, deep=True))


def test_no_place_that_a_stranger_names_is_looked_at(data_set: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not this machine's folders, nor other data sets of the Hub."""

    def look(name: str) -> None:
        raise AssertionError(name)

    monkeypatch.setattr("prisma.data.task_at", look)
    for name in ("folder:/home", "hub:evil/set", "mnist:/data"):
        data_set.serve(fitted(data_set.files(), lambda values, name=name: values["about"].update(task=name)))  # type: ignore[misc]
        assert any(f"to compare the files with; found {name}" in problem for problem in problems(data_set, deep=True))


def test_labels_of_checkpoints_belong_to_mice(data_set: Folder) -> None:
    refs = data_set.published.folder / "refs"
    for label in ("dev", "v1.0", "step-000002"):
        (refs / label).write_text((refs / MAIN).read_text())
    (finding,) = audit(f"datasets/{SET}", data_set.published.hub)
    assert (finding.revision, finding.problem.split(";")[1]) == ("step-000002", " found one")


def test_a_mouse_with_the_manifest_of_an_artefact_is_a_mouse(hub: Path) -> None:
    mouse = Folder(hub, "lab/tiny", "model")
    mouse.serve({**mouse.files(), ARTEFACT: b"{}"})
    assert problems(mouse) == [f"expected only the files of the manifest; found {ARTEFACT}"]


def test_what_an_owner_may_do_to_a_lens_is_found(hub: Path, lens: Path, tmp_path: Path) -> None:
    publish(lens, LENS, hub, base_model="lab/tiny", license="mit")
    folder = Folder(hub, LENS, "model")
    files = folder.files()
    tensors, _ = read_tensors(lens / WEIGHTS)
    save_file({**tensors, "losses": tensors["losses"] / 2}, tmp_path / "better")
    config = json.loads(files[CONFIG])
    config["metadata"]["model"] = "f" * 64
    for changed, words in (
        (fitted({**files, WEIGHTS: (tmp_path / "better").read_bytes()}), "found others of losses"),
        (fitted({**files, CONFIG: json.dumps(config).encode()}), "expected a base model with the weights ffff"),
        (fitted({**files, WEIGHTS: b"\x80pickle"}), WEIGHTS),
        (fitted(files, lambda values: values["about"].update(d_model=9)), "found others of d_model"),
        ({name: data for name, data in files.items() if name != ARTEFACT}, f"expected {ARTEFACT}, which Prisma"),
    ):
        folder.serve(changed)
        assert any(words in problem for problem in problems(folder)), words


def test_a_data_set_can_be_signed(data_set: Folder, tmp_path: Path) -> None:
    private, public = pair(tmp_path)
    assert problems(data_set, key=public) == [f"expected a signature {ARTEFACT}.sig; found none"]
    publish(f"task:{DATA}", SET, data_set.published.hub, sign=private)
    assert problems(data_set) == problems(data_set, key=public) == []
    signature = data_set.files()[f"{ARTEFACT}.sig"]
    data_set.serve({**fitted(data_set.files(), lambda v: v["about"].update(seed=1)), f"{ARTEFACT}.sig": signature})
    assert any(f"{ARTEFACT} was changed" in problem for problem in problems(data_set, key=public))


def test_the_same_on_the_hub(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    publish(f"task:{DATA}", SET)
    train = file_of("train")
    other = to_parquet(task(DATA), task(DATA).splits["test"])
    for operation, words in (
        (CommitOperationAdd("evil.py", b"1"), "a program"),
        (CommitOperationAdd(ARTEFACT, b"{}"), "expected the manifest of an artefact"),
        (CommitOperationAdd(train, other), f"expected {train} of"),
        (CommitOperationDelete(train), f"expected a file {train}"),
    ):
        before = server.api.dataset_info(SET).sha
        server.api.create_commit(SET, [operation], commit_message="Update", repo_type="dataset")
        assert any(words in finding.problem for finding in audit(f"datasets/{SET}")), words
        publish(f"task:{DATA}", SET, replace=True)
        assert server.api.dataset_info(SET).sha != before and not audit(f"datasets/{SET}")
    path = server.api.hf_hub_download(SET, ARTEFACT, repo_type="dataset")
    fake = CommitOperationAdd(ARTEFACT, Path(path).read_bytes().replace(b"generated by", b"drawn by"))
    server.api.create_commit(SET, [fake], commit_message="Update", repo_type="dataset")
    assert any("commit message that states the SHA-256" in finding.problem for finding in audit(f"datasets/{SET}"))
