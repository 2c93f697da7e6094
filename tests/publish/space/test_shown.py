"""Which mice a Space shows, and what is copied of them."""

import json
import shutil
from pathlib import Path

import pytest

from prisma import PrismaError
from prisma.publish.space import shown
from prisma.publish.space.shown import copies, pinned
from prisma.repository import Published
from tests.publish.space.fake_hub import FakeHub

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "lab/tiny"


def model(*, private: bool = False, gated: bool = False, without: str = "") -> dict[str, object]:
    names = [name for name in shown.NEEDED if name != without]
    files = [type("File", (), {"rfilename": name})() for name in names]
    return {"sha": COMMIT, "private": private, "gated": gated, "siblings": files}


@pytest.fixture
def online(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    monkeypatch.setattr(shown, "no_network", lambda: None)
    return fake


def test_mice_of_a_folder_hub_are_pinned_to_their_main(finished_hub: Path) -> None:
    commit = (Published(REPO, finished_hub).folder / "refs" / "main").read_text()
    assert pinned([], finished_hub) == (Published(REPO, finished_hub, commit),)
    assert pinned([REPO, f" {REPO}"], finished_hub) == pinned([f"{REPO}@{commit}"], finished_hub)


def test_mice_of_the_hub_are_pinned_to_their_commit(online: FakeHub) -> None:
    online.models[REPO] = model()
    assert pinned([REPO], None) == (Published(REPO, None, COMMIT),)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "expected the names of published mice, as in --models OWNER/NAME; found none"),
        (["a"], "which has no owner"),
        (["lab/hidden"], "expected a public mouse.*lab/hidden is private: make it public, or.*--hub DIR"),
        (["lab/gated"], "lab/gated is gated"),
        (["lab/other"], "expected a mouse that `prisma publish` made; found no checkpoints.json in lab/other"),
        (["lab/none"], "could not read lab/none .*404.*: check the name"),
        ([REPO, f"{REPO}@main"], "expected every mouse once"),
    ],
)
def test_what_a_space_cannot_show(online: FakeHub, names: list[str], message: str) -> None:
    online.models |= {REPO: model(), "lab/hidden": model(private=True), "lab/gated": model(gated=True)}
    online.models["lab/other"] = model(without="checkpoints.json")
    with pytest.raises(PrismaError, match=message):
        pinned(names, None)


def test_without_a_network_the_folder_hub_is_offered(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown, "no_network", lambda: "the Hub cannot be reached")
    with pytest.raises(PrismaError, match=r"the Hub cannot be reached; --hub DIR shows the mice of a folder hub"):
        pinned([REPO], None)
    assert fake.calls == []


def test_copies_are_a_folder_hub_of_the_same_models_without_links(finished_hub: Path, tmp_path: Path) -> None:
    (mouse,) = pinned([], finished_hub)
    for name, source in copies(mouse):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source if isinstance(source, bytes) else source.read_bytes())
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))
    copy = Published(REPO, tmp_path, mouse.commit)
    assert copy.checkpoints() == mouse.checkpoints()
    for entry in mouse.checkpoints():
        for name in ("config.json", "model.safetensors"):
            found, wanted = (m.file(name, entry["revision"]).read_bytes() for m in (copy, mouse))
            assert found == wanted == copy.file(name, entry["commit"]).read_bytes()


def test_only_files_that_the_app_reads_are_copied(finished_hub: Path) -> None:
    (mouse,) = pinned([], finished_hub)
    names = {name.rsplit("/", 1)[1] for name, _ in copies(mouse) if "/snapshots/" in name}
    assert names == set(shown.USED)


def test_a_link_out_of_the_hub_is_refused(hub: Path, tmp_path: Path) -> None:
    (mouse,) = pinned([], hub)
    secret = tmp_path / "secret"
    secret.write_text("mine")
    link = mouse.snapshot(str(mouse.commit)) / "metrics.jsonl"
    link.unlink()
    link.symlink_to(secret)
    with pytest.raises(PrismaError, match=r"to be a file of the hub; found a link that leads elsewhere"):
        list(copies(mouse))


def test_a_linked_repository_is_refused(hub: Path, tmp_path: Path) -> None:
    folder = hub / "models--lab--tiny"
    shutil.move(folder, tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PrismaError, match=r"found a link that leads elsewhere"):
        list(copies(pinned([], hub)[0]))


def test_weights_that_are_not_the_manifest_s_are_refused(hub: Path) -> None:
    (mouse,) = pinned([], hub)
    refs = mouse.folder / "refs"
    (refs / "step-000002").write_text((refs / "step-000001").read_text())
    with pytest.raises(PrismaError, match=r"step-000002 of lab/tiny to serve the weights of its.*prisma audit"):
        list(copies(mouse))


def test_a_manifest_without_hashes_is_refused(hub: Path) -> None:
    (mouse,) = pinned([], hub)
    manifest = mouse.snapshot(str(mouse.commit)) / "checkpoints.json"
    manifest.unlink()
    manifest.write_text(json.dumps({"checkpoints": [{"step": 0}]}))
    with pytest.raises(PrismaError, match=r"expected a label, a commit and a hash for each checkpoint"):
        list(copies(mouse))
