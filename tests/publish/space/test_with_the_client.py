"""`prisma space` against a small Hub on this machine, with the Hub's own client: nothing between them is replaced."""

import base64
import json
import shutil
import traceback
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from huggingface_hub import HfApi, snapshot_download

from prisma import PrismaError
from prisma.publish import publish
from prisma.publish.space import Plan, plan, running, send, write
from prisma.publish.space.planning import Source, _listed
from prisma.repository import Published
from tests.app.unpack import unpack
from tests.hubserver.running import TOKEN, Hub, use
from tests.publish.space.conftest import SPACE


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(running, "POLL", 0.01)
    with Hub(tmp_path / "root", pro=True) as hub:
        use(monkeypatch, hub.url, tmp_path / "cache")
        yield hub
        assert hub.asked("unrouted") == []


@pytest.fixture(scope="module")
def page(finished_hub: Path) -> Plan:
    """A static Space, which is quick to serve."""
    return plan(SPACE, [], finished_hub, static=True, images=1, steps=1)


@pytest.fixture
def served(page: Plan, tmp_path: Path, server: Hub) -> Iterator[str]:
    """The address of that page's files, which the Hub names as the one of its Spaces."""
    write(page, tmp_path / "page")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    files = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path / "page"))
    thread = Thread(target=files.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{files.server_port}"
    server.change(space_host=address)
    yield address
    files.shutdown()
    files.server_close()
    thread.join()


def test_a_static_space_is_made_once_for_a_free_account(server: Hub, served: str, page: Plan, tmp_path: Path) -> None:
    server.change(pro=False)
    first = send(page, private=False)
    assert (first.changed, first.stage, first.private, first.app) == (True, "RUNNING", False, served)
    assert first.url == f"{server.url}/spaces/{SPACE}"
    copy = Path(snapshot_download(SPACE, repo_type="space", local_dir=tmp_path / "copy"))
    found = {p.relative_to(copy).as_posix(): p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    assert {name: found[name] for name in page.files} == {
        name: source if isinstance(source, bytes) else source.read_bytes() for name, source in page.files.items()
    }
    commits = server.api.list_repo_commits(SPACE, repo_type="space")
    second = send(page)
    assert (second.changed, second.commit, second.private) == (False, first.commit, False)
    assert server.api.list_repo_commits(SPACE, repo_type="space") == commits
    assert server.api.space_info(SPACE).sha == first.commit


def test_stale_files_are_deleted_in_the_same_commit(server: Hub, served: str, page: Plan) -> None:
    server.api.create_repo(SPACE, repo_type="space", space_sdk="static")
    for name in ("style.css", "old/weights.safetensors"):
        server.api.upload_file(path_or_fileobj=b"old", path_in_repo=name, repo_id=SPACE, repo_type="space")
    before = len(server.api.list_repo_commits(SPACE, repo_type="space"))
    send(page)
    names = server.api.list_repo_files(SPACE, repo_type="space")
    assert set(names) == {".gitattributes", *page.files}
    assert len(server.api.list_repo_commits(SPACE, repo_type="space")) == before + 1


def test_a_free_account_is_told_what_works_and_no_token(server: Hub, planned: Plan) -> None:
    server.change(pro=False)
    with pytest.raises(PrismaError, match=r"free accounts cannot host a Gradio Space on cpu-basic.*--static") as found:
        send(planned)
    assert TOKEN not in "".join(traceback.format_exception(found.value))
    assert found.value.__context__ is None


def test_a_gradio_space_with_large_files_waits_for_its_build(
    server: Hub, planned: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prisma.publish.space.sending.expect_answers", lambda *_: None)
    small = {n: s for n, s in planned.files.items() if n.startswith("hub/") or "/" not in n}
    made = _listed(replace(planned, files=small))
    assert (send(made).changed, send(made).changed) == (True, False)  # weights are compared by their SHA-256
    info = server.api.space_info(SPACE, files_metadata=True)
    assert any(file.lfs for file in info.siblings or ())
    server.change(outcome="BUILD_ERROR")
    with pytest.raises(PrismaError, match=rf"stage BUILD_ERROR: its log is at {server.url}/spaces/{SPACE}\?logs=build"):
        send(_listed(replace(made, files={**small, "app.py": b"import nothing"})))


@pytest.mark.parametrize("status", [401, 403, 412, 429, 500])
def test_every_refusal_is_a_sentence_without_the_token(server: Hub, page: Plan, status: int) -> None:
    server.fail(str(status), "create_repo", times=None)
    with pytest.raises(PrismaError, match=rf"could not make the Space {SPACE} .*{status}") as found:
        send(page)
    assert TOKEN not in "".join(traceback.format_exception(found.value))


def numbers(script: Source) -> list[float]:
    """The probabilities in a script of a static page."""
    assert isinstance(script, bytes)
    text = json.loads("[" + script.decode().strip().removeprefix("PRISMA_PACK(").removesuffix(");") + "]")[1]
    found: list[float] = unpack(base64.b64decode(text))[1]["probability"].tolist()
    return found


def test_mice_of_the_hub_are_pinned_and_read(server: Hub, finished_hub: Path, tmp_path: Path) -> None:
    """A mouse on the Hub, whose checkpoints are commits there: the plan, and the numbers that the Space must answer."""
    mouse, api = Published("lab/tiny", finished_hub), server.api
    api.create_repo("lab/tiny", private=False)
    entries = mouse.checkpoints()
    for entry in entries:
        folder = mouse.file("config.json", entry["revision"]).parent
        api.create_branch("lab/tiny", branch=entry["revision"])
        made = api.upload_folder(repo_id="lab/tiny", folder_path=folder, revision=entry["revision"])
        entry["commit"] = made.oid
    main = tmp_path / "main"
    main.mkdir()
    for path in mouse.file("config.json").parent.iterdir():
        if path.is_file():
            (main / path.name).write_bytes(path.read_bytes())
    (main / "checkpoints.json").write_text(json.dumps({"checkpoints": entries}))
    head = api.upload_folder(repo_id="lab/tiny", folder_path=main).oid
    api.upload_file(path_or_fileobj=b"later", path_in_repo="notes.txt", repo_id="lab/tiny")
    made_plan = plan(SPACE, [f"lab/tiny@{head}"])
    assert made_plan.models == (Published("lab/tiny", None, head),)
    assert plan(SPACE, ["lab/tiny"]).models[0].commit == HfApi().model_info("lab/tiny").sha != head
    assert not any(name.startswith("hub/") for name in made_plan.files)
    card = made_plan.files["README.md"]
    assert isinstance(card, bytes) and f"probe.safetensors {head}" in card.decode()
    static = plan(SPACE, ["lab/tiny"], static=True, images=1, steps=2)
    local = plan(SPACE, [], finished_hub, static=True, images=1, steps=2)
    views = [name for name in static.files if name.startswith("data/answer/")]
    assert len(views) == 2 and all(numbers(static.files[name]) == numbers(local.files[name]) for name in views)


def test_a_private_mouse_is_refused_before_anything_is_sent(server: Hub, finished_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run")
    publish(run, "lab/hidden", progress=False)
    server.forget()
    with pytest.raises(
        PrismaError, match=r"^expected a public mouse.*lab/hidden is private: make it public, or.*--hub DIR"
    ):
        plan(SPACE, ["lab/hidden"])
    assert {row["method"] for row in server.requests} <= {"GET", "HEAD"}
    publish(run, "lab/hidden", public=True, progress=False)
    assert plan(SPACE, ["lab/hidden"]).models[0].repo == "lab/hidden"
