"""Reading a published mouse: every file at every revision, and one sentence for what is not there."""

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch

import prisma
from prisma.checkpoint import WEIGHTS, read_tensors, to_safetensors
from prisma.errors import PrismaError
from prisma.publish import audit
from prisma.repository import DATASET, MANIFEST, MODEL, Published, kind_and_repo, name_of, published_in, repositories_in
from prisma.run_folder import PROBE, revision_of


@pytest.fixture
def mouse(hub: Path, monkeypatch: pytest.MonkeyPatch) -> Published:
    """In a folder hub, which is read without a network."""

    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("a folder hub needs no network")

    monkeypatch.setattr("socket.socket.connect", no_network)
    monkeypatch.setattr("socket.getaddrinfo", no_network)
    return Published("lab/tiny", hub)


def test_every_file_of_every_revision(mouse: Published) -> None:
    for entry in mouse.checkpoints():
        by_label, by_commit = (mouse.file(WEIGHTS, entry[key]) for key in ("revision", "commit"))
        assert by_label == by_commit
        assert read_tensors(by_label)[1]["step"] == str(entry["step"])
    assert mouse.file("curves/loss.png").is_file()
    assert mouse.file(WEIGHTS) == mouse.file(WEIGHTS, "main")


def test_labels_and_manifest_are_in_step_order(mouse: Published) -> None:
    assert mouse.revisions() == ["main", *(f"step-{step:06d}" for step in (0, 1, 2, 4, 6))]
    assert [entry["step"] for entry in mouse.checkpoints()] == [0, 1, 2, 4, 6]
    assert {"step", "revision", "commit", "sha256", "size", "fingerprint", "files"} == set(mouse.checkpoints()[0])


def test_the_probe_is_images_and_labels(mouse: Published, run: Path) -> None:
    images, labels = mouse.probe()
    stored, _ = read_tensors(run / PROBE)
    assert torch.equal(images, stored["images"])
    assert torch.equal(labels, stored["labels"])
    assert images.min() >= 0
    assert images.max() <= 1


def test_a_probe_without_labels_is_one_sentence(mouse: Published, run: Path) -> None:
    images, _ = mouse.probe()
    mouse.file(PROBE).resolve().write_bytes(to_safetensors({"images": images}, {}))
    with pytest.raises(PrismaError, match=r"expected images and labels in .* of lab/tiny; found images$"):
        mouse.probe()


def test_a_relative_hub_is_found(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(hub.parent)
    assert Published("lab/tiny", Path("hub")).file(WEIGHTS).is_file()


def test_a_hub_lists_what_has_a_main(hub: Path) -> None:
    shutil.copytree(hub / "models--lab--tiny", hub / "models--other--mouse", symlinks=True)
    (hub / "models--half--done/refs").mkdir(parents=True)
    (hub / "datasets--some--data/refs").mkdir(parents=True)
    assert published_in(hub) == ["lab/tiny", "other/mouse"]


@pytest.mark.parametrize(
    ("repo", "name", "revision", "sentence"),
    [
        ("lab/tyni", WEIGHTS, None, "lab/tyni is not published .* the nearest: lab/tiny"),
        ("lab/tiny", WEIGHTS, "step-000003", "no revision 'step-000003'; the nearest: step-00000"),
        ("lab/tiny", WEIGHTS, "0" * 40, "no revision"),
        ("lab/tiny", WEIGHTS, "..", "no revision"),
        ("lab/tiny", "model.safetensor", None, "no file 'model.safetensor'; the nearest: model.safetensors"),
        ("lab/tiny", "README.md", "step-000001", "step-000001 has no file 'README.md'; the nearest: "),
    ],
)
def test_what_is_not_there_is_one_sentence(
    mouse: Published, repo: str, name: str, revision: str | None, sentence: str
) -> None:
    with pytest.raises(PrismaError, match=sentence) as error:
        Published(repo, mouse.hub).file(name, revision)
    assert "\n" not in str(error.value)


def test_a_hub_that_is_not_there_or_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for hub in (tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(PrismaError, match="expected a folder hub"):
            Published("lab/tiny", hub).file(WEIGHTS)


def test_a_name_is_owner_and_name() -> None:
    for repo in ("tiny", "a/b/c", "", "lab/", "/tiny", "lab/..", "l--b/x", "lab/x.git", "lab/x-", "-l/x"):
        with pytest.raises(PrismaError, match="expected OWNER/NAME"):
            Published(repo)
            pytest.fail(f"{repo!r} is taken as a name")


def test_a_name_that_the_hubs_client_takes() -> None:
    for repo in ("lab/tiny", "l/t", "lab_1/tiny.v2-x", "a" * 47 + "/" + "b" * 48):
        assert Published(repo).repo == repo
        huggingface_hub.utils.validate_repo_id(repo)


@pytest.mark.parametrize("manifest", ["", "[]", "{}", '{"checkpoints": [1]}', '{"checkpoints": [{}]}'])
def test_a_broken_manifest_is_one_sentence(mouse: Published, manifest: str) -> None:
    mouse.file(MANIFEST).resolve().write_text(manifest)
    with pytest.raises(PrismaError, match="expected a list of checkpoints"):
        mouse.checkpoints()


def test_the_hub_itself_is_read_by_the_client_and_its_failures_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch, hub: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    mouse = Published("lab/tiny")
    assert json.loads(mouse.file(MANIFEST).read_text())["checkpoints"] == mouse.checkpoints()
    with pytest.raises(
        PrismaError,
        match=r"lab/tiny at step-000009 is not in the Hub's cache .*, and HF_HUB_OFFLINE is set",
    ) as error:
        mouse.file(WEIGHTS, "step-000009")
    assert "\n" not in str(error.value)


def test_a_stray_folder_is_no_mouse(hub: Path) -> None:
    (hub / "models--evil--<b>x" / "refs").mkdir(parents=True)
    (hub / "models--evil--<b>x" / "refs" / "main").write_text("0" * 40)
    assert published_in(hub) == ["lab/tiny"]


def test_hidden_files_are_no_labels(hub: Path) -> None:
    mouse = Published("lab/tiny", hub)
    labels = mouse.revisions()
    for name in (".DS_Store", "Thumbs.db", "._main"):
        (mouse.folder / "refs" / name).write_bytes(b"\0icons")
    assert mouse.revisions() == labels


def test_labels_are_in_step_order_beyond_a_million_steps(mouse: Published) -> None:
    for step in (999_999, 1_000_000, 20_000_000):
        shutil.copy(mouse.folder / "refs" / "main", mouse.folder / "refs" / revision_of(step))
    assert mouse.revisions()[-4:] == ["step-000006", "step-999999", "step-1000000", "step-20000000"]
    found = [finding.revision for finding in audit("lab/tiny", mouse.hub or Path())]
    assert list(dict.fromkeys(found)) == ["step-999999", "step-1000000", "step-20000000"]


@pytest.mark.parametrize("revision", [5, ["main"], b"main", "", "half\ud800", "a\nb"])
def test_a_revision_that_is_none_is_one_sentence(mouse: Published, revision: Any) -> None:
    for where in (mouse, Published("lab/tiny")):
        with pytest.raises(PrismaError, match=r"^(expected a revision|lab/tiny has no revision)") as error:
            where.file(WEIGHTS, revision)
        assert "\n" not in str(error.value) and str(error.value).isprintable()
    for hub in ("half\ud800", "\0"):
        with pytest.raises(PrismaError, match=r"^expected a path that a file can have; found"):
            prisma.load("lab/tiny", hub=hub)


def test_a_mouse_at_a_commit_is_read_there_after_main_has_moved(hub: Path) -> None:
    mouse = Published("lab/tiny", hub)
    main = mouse.folder / "refs" / "main"
    commit = main.read_text()
    main.write_text((mouse.folder / "refs" / "step-000002").read_text())
    pinned = Published("lab/tiny", hub, commit)
    assert pinned.file("model.safetensors").parent.name == commit != mouse.file("model.safetensors").parent.name
    assert pinned.file("model.safetensors", "step-000002") == mouse.file("model.safetensors")
    assert len(pinned.checkpoints()) == 5


def test_a_data_set_and_a_model_of_one_name_are_two_repositories(hub: Path) -> None:
    model, data = Published("lab/tiny", hub), Published("lab/tiny", hub, kind=DATASET)
    assert (model.folder.name, data.folder.name) == ("models--lab--tiny", "datasets--lab--tiny")
    with pytest.raises(PrismaError, match=r"lab/tiny is not published in the hub .*; the nearest: none"):
        data.file("README.md")
    shutil.copytree(model.folder, data.folder, symlinks=True)
    readme = model.file("README.md").read_text()
    shutil.rmtree(model.folder)
    assert data.file("README.md").read_text() == readme
    assert (published_in(hub), repositories_in(hub, DATASET)) == ([], ["lab/tiny"])


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("lab/tiny", (MODEL, "lab/tiny")),
        ("datasets/lab/tiny", (DATASET, "lab/tiny")),
        ("datasets/tiny", (MODEL, "datasets/tiny")),  # a model of an owner of that name
        ("datasets/a/b/c", (MODEL, "datasets/a/b/c")),
    ],
)
def test_a_name_says_its_kind(name: str, meant: tuple[str, str]) -> None:
    assert kind_and_repo(name) == meant
    assert name_of(*meant) == name


def test_an_artefact_is_no_mouse(hub: Path) -> None:
    shutil.copytree(hub / "models--lab--tiny", hub / "models--lab--lens", symlinks=True)
    lens = Published("lab/lens", hub)
    (lens.snapshot(lens.commit_of("main")) / "manifest.json").write_text("{}")
    assert published_in(hub) == ["lab/tiny"]
    assert repositories_in(hub) == ["lab/lens", "lab/tiny"]
