"""Publishing to the Hub: what is served, twice, conflicts, strangers, lost answers."""

import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from huggingface_hub import CommitOperationAdd, HfApi

import prisma
from prisma.checkpoint import CONFIG, WEIGHTS, read_tensors
from prisma.errors import PrismaError
from prisma.publish import Report, publish
from prisma.publish.commits import Commit, File
from prisma.publish.hugging_face_hub import CHAIN, HuggingFaceHub
from prisma.publish.journal import Journal
from prisma.publish.manifest import Manifest
from prisma.publish.plan import Plan
from prisma.publish.publishing import send
from prisma.repository import MANIFEST, Published
from prisma.run_folder import revision_of
from tests.hubserver.running import TOKEN, Hub, use
from tests.publish.small_plans import REPO, expect_served, remote_hub, small_plan

READS = {"GET", "HEAD"}


def put(plan: Plan, folder: Path, *, replace: bool = False, **calls: object) -> Report:
    hub = remote_hub(folder, **calls)
    with hub.calls.counting():
        return send(plan, hub, replace=replace, progress=False)


def uploads(server: Hub) -> Counter[str]:
    return Counter(row["path"].rpartition("/")[2] for row in server.asked("lfs_put") if row["status"] == 200)


def test_what_is_read_is_what_the_run_holds(server: Hub, run: Path) -> None:
    report = publish(run, REPO, progress=False)
    assert report.changed
    assert report.hub == server.url
    assert report.requests == sum(row["origin"] == "hub" for row in server.requests)
    folders = {label: run / "checkpoints" / label for label in report.revisions} | {"main": run}
    assert len(folders) == 6
    for revision, folder in folders.items():
        for name in (CONFIG, WEIGHTS):
            assert Published(REPO).file(name, revision).read_bytes() == (folder / name).read_bytes()
        loaded = prisma.load(REPO, revision=revision)
        tensors, _ = read_tensors(folder / WEIGHTS)
        assert all(torch.equal(x, tensors[name]) for name, x in loaded.model.state_dict().items())
    rows = Published(REPO).checkpoints()
    refs = {branch.name: branch.target_commit for branch in HfApi().list_repo_refs(REPO).branches}
    assert {row["revision"]: row["commit"] for row in rows} | {"main": report.commit, CHAIN: rows[-1]["commit"]} == refs


def test_files_go_by_plain_http_although_the_client_has_xet(
    server: Hub, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where only HF_ENDPOINT and HF_TOKEN are set: no Hub on this machine has Xet."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    monkeypatch.setattr("huggingface_hub.utils._runtime.is_package_available", lambda name: True)
    assert publish(run, REPO, progress=False).changed
    assert server.asked("lfs_put") and not server.asked("unrouted")


def test_again_writes_nothing(server: Hub, run: Path) -> None:
    first = publish(run, REPO, progress=False)
    server.forget()
    again = publish(run, REPO, progress=False)
    assert not again.changed
    assert (again.commit, again.revisions) == (first.commit, first.revisions)
    assert {row["method"] for row in server.requests} <= READS
    assert (again.bytes, first.bytes > 0) == (0, True)


def test_it_is_private_until_told_otherwise(server: Hub, run: Path) -> None:
    publish(run, REPO, progress=False)
    assert HfApi().model_info(REPO).private
    assert publish(run, REPO, public=True, progress=False).changed
    assert not HfApi().model_info(REPO).private
    assert not publish(run, REPO, public=True, progress=False).changed
    assert HfApi(token=False).model_info(REPO).private is False


def test_requests_of_a_checkpoint(server: Hub, tmp_path: Path) -> None:
    """Five and a bit, one of which goes to the storage."""
    asked = []
    for n in (40, 70):
        server.forget()
        report = send(small_plan(n, seed=n), remote_hub(tmp_path, f"lab/m{n}"), progress=False)
        assert len(report.revisions) == n
        asked.append(Counter(row["route"] for row in server.requests))
    more = asked[1] - asked[0]
    each = ("commit", "tree", "create_branch", "lfs_put", "lfs_verify")
    assert more == Counter({**dict.fromkeys(each, 30), "preupload": 1, "lfs_batch": 1})


def test_a_checkpoint_inherits_nothing_and_names_its_parent(server: Hub, tmp_path: Path) -> None:
    api = HfApi()
    api.create_repo(REPO)
    first = api.list_repo_commits(REPO)[-1].commit_id
    api.create_commit(REPO, [CommitOperationAdd("pytorch_model.bin", b"old")], commit_message="mine")
    plan = small_plan(3)
    with pytest.raises(PrismaError, match="expected main of lab/tiny to serve the files of this run"):
        put(plan, tmp_path)
    put(plan, tmp_path, replace=True)
    for step in plan.steps:
        assert set(api.list_repo_files(REPO, revision=step.label)) == {".gitattributes", CONFIG, WEIGHTS}
    assert "pytorch_model.bin" not in api.list_repo_files(REPO)
    chain = api.list_repo_commits(REPO, revision=CHAIN)
    assert [commit.title for commit in chain][::-1] == ["initial commit", *(f"Step {i} of run run-0" for i in range(3))]
    assert chain[-1].commit_id == first
    expect_served(plan)


def test_another_run_needs_replace_which_announces_itself(server: Hub, tmp_path: Path) -> None:
    old, new = small_plan(3), small_plan(2, seed=1)
    put(old, tmp_path / "old")
    before = {row["revision"]: row["commit"] for row in Published(REPO).checkpoints()}
    server.forget()
    with pytest.raises(PrismaError, match=r"expected only revisions of this run in lab/tiny; found step-000002 \(comm"):
        put(new, tmp_path)
    with pytest.raises(PrismaError, match=r"expected step-000000 of lab/tiny to serve the files of this run"):
        put(small_plan(3, seed=1), tmp_path)
    assert {row["method"] for row in server.requests if row["route"] != "create_repo"} <= READS
    server.fail("403", "create_branch", after=1)  # in the middle
    with pytest.raises(PrismaError, match="no permission"):
        put(new, tmp_path, replace=True)
    with pytest.raises(PrismaError, match="found that those of run run-1 are taking their place"):
        Published(REPO).checkpoints()
    report = put(new, tmp_path, replace=True)
    assert report.removed == ("step-000002",)
    expect_served(new)
    assert Published(REPO).file(WEIGHTS, before["step-000002"]).read_bytes() == old.steps[2].commit.file(WEIGHTS).source
    titles = [commit.title for commit in HfApi().list_repo_commits(REPO)]
    assert [title[:13] for title in titles] == ["Run run-1: 2 ", "Run run-1 is ", "Run run-0: 3 ", "initial commi"]


def test_a_damaged_manifest_does_not_stop_a_replacement(server: Hub, tmp_path: Path) -> None:
    put(small_plan(), tmp_path / "old")
    HfApi().create_commit(REPO, [CommitOperationAdd(MANIFEST, b"{no")], commit_message="x")
    put(small_plan(seed=1), tmp_path, replace=True)
    expect_served(small_plan(seed=1))


def test_branches_that_are_no_checkpoints_are_left_alone(server: Hub, tmp_path: Path) -> None:
    put(small_plan(), tmp_path)
    HfApi().create_branch(REPO, branch="dev")
    assert not put(small_plan(), tmp_path).changed
    HfApi().create_branch(REPO, branch="step-000099")
    with pytest.raises(PrismaError, match="found step-000099"):
        put(small_plan(), tmp_path)
    put(small_plan(), tmp_path, replace=True)
    expect_served(small_plan(), extra={"dev"})


def test_somebody_elses_commit_between(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the branch of checkpoints: the next commit removes what it brought. On main: one sentence."""
    plan, api, sent = small_plan(3), HfApi(), list[str]()
    honest = HfApi.create_commit

    def intruding(client: HfApi, repo: str, operations: object, **rest: object) -> object:
        sent.append(str(rest["revision"]))
        if len(sent) == 2:
            honest(api, repo, [CommitOperationAdd("evil.html", b"x")], commit_message="mine", revision=CHAIN)
        return honest(client, repo, operations, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(HfApi, "create_commit", intruding)
    put(plan, tmp_path)
    assert sent == [CHAIN] * 4 + ["main"]
    expect_served(plan)
    assert [row["status"] for row in server.asked("commit")] == [200, 200, 412, 200, 200, 200]


def test_a_change_of_main_meanwhile_is_not_overwritten(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(small_plan(3, seed=1), tmp_path / "old")
    hub = remote_hub(tmp_path)
    honest = type(hub).unlabel

    def editing(self: HuggingFaceHub, label: str) -> None:
        HfApi().create_commit(REPO, [CommitOperationAdd("note.txt", b"mine")], commit_message="by hand")
        honest(self, label)

    monkeypatch.setattr(type(hub), "unlabel", editing)
    with pytest.raises(PrismaError, match="expected nobody else to change main of lab/tiny"):
        send(small_plan(), hub, replace=True, progress=False)


def test_nothing_is_uploaded_twice(server: Hub, tmp_path: Path) -> None:
    plan = small_plan(4)
    put(plan, tmp_path)
    last = plan.steps[-1].commit.file(WEIGHTS)
    assert len(uploads(server)) == 4 + 1  # main's weights are the last checkpoint's; its picture is large too
    assert set(uploads(server).values()) == {1}
    assert uploads(server)[last.sha256] == 1


def test_an_upload_of_other_bytes_gets_no_label(server: Hub, tmp_path: Path) -> None:
    """The commit holds something else than was sent: found in the Hub's own listing."""
    server.fail("wrong_hash", "commit", after=1)
    with pytest.raises(PrismaError, match=r"as they were sent; the Hub lists others: \S+: no label was made; publish"):
        put(small_plan(3), tmp_path)
    labels = remote_hub(tmp_path).labels()
    assert "step-000001" not in labels
    assert "main" not in labels
    put(small_plan(3), tmp_path)
    expect_served(small_plan(3))


def test_a_file_that_changes_on_the_way_is_not_published(server: Hub, tmp_path: Path) -> None:
    plan = small_plan(folder=tmp_path / "run")
    path = tmp_path / "run" / revision_of(1) / WEIGHTS
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(PrismaError, match=r"step-000001/model\.safetensors to stay as it was during publishing"):
        put(plan, tmp_path)
    assert not remote_hub(tmp_path).labels()


def test_the_journal_tells_what_was_done(server: Hub, tmp_path: Path) -> None:
    put(small_plan(1), tmp_path)
    events = Journal.of(tmp_path, REPO).events()
    did = [(event["event"], event.get("label") or event.get("branch")) for event in events]
    assert did == [("labelled", CHAIN), ("committed", CHAIN), ("labelled", "step-000000"), ("committed", "main")]
    assert TOKEN not in Journal.of(tmp_path, REPO).path.read_text()


def test_two_publishers_of_one_run(server: Hub, tmp_path: Path) -> None:
    with Journal.of(tmp_path, REPO).writing(), pytest.raises(PrismaError, match="expected to be the only process"):
        put(small_plan(), tmp_path)


def test_a_part_of_main_is_amended(server: Hub, tmp_path: Path) -> None:
    put(small_plan(1), tmp_path)
    hub = remote_hub(tmp_path)
    manifest = Manifest.parse(hub.read(MANIFEST) or b"")
    with hub.writing():
        made = hub.amend((File.of("note.txt", b"hello"),), "A note")
    assert HfApi().model_info(REPO).sha == made
    assert hub.differing(made, Commit((File.of("note.txt", b"hello"),))) == sorted(
        {*(file.name for file in manifest.files), MANIFEST}
    )
    assert hub.read("note.txt") == b"hello"
    assert hub.read("none.txt") is None
    with hub.writing():
        made = hub.amend((File.of("other.txt", b"you"),), "Another note", removed=("note.txt", "none.txt"))
        assert hub.amend((), "Nothing", removed=("note.txt",)) == made
    names = {file.rfilename for file in HfApi().model_info(REPO).siblings or ()}
    assert "other.txt" in names and "note.txt" not in names and MANIFEST in names


def test_the_bytes_of_main_are_checked(server: Hub, tmp_path: Path) -> None:
    put(small_plan(1), tmp_path)
    commit = remote_hub(tmp_path).labels()["main"]
    stored = server.root / "models" / REPO / "blobs"
    record = remote_hub(tmp_path).remote.listing(commit)["config.json"]
    (stored / record.oid).write_bytes(b'{"seed": 7}\n')
    with pytest.raises(PrismaError, match=r"config\.json of lab/tiny at [0-9a-f]{40} as the Hub lists it; found other"):
        remote_hub(tmp_path).read("config.json")


def test_a_data_set_is_a_repository_too(server: Hub, tmp_path: Path) -> None:
    hub = remote_hub(tmp_path)
    hub.remote.kind = hub.kind = "dataset"
    send(small_plan(), hub, progress=False)
    assert json.loads(json.dumps(HfApi().list_repo_files(REPO, repo_type="dataset")))


def test_the_limit_of_commits_is_waited_for(server: Hub, tmp_path: Path) -> None:
    said = list[str]()
    server.change(commits=3)
    report = put(small_plan(7), tmp_path, sleep=server.advance, say=said.append)
    assert len(report.made) == 8
    assert Counter(row["status"] for row in server.asked("commit")) == {200: 8, 429: 2}
    assert len(said) == 2
    assert "waiting 60 minutes for the Hub to take a commit of lab/tiny (status 429: You have exceeded the" in said[0]
    expect_served(small_plan(7))


def test_the_own_limit_keeps_below_it_across_processes(server: Hub, tmp_path: Path) -> None:
    """Commits are paced by the journal's times, so a second process knows of those of the first."""
    now, slept = [1e9], list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds
        server.advance(seconds)

    server.change(commits=3)
    for repo in (REPO, "lab/other"):
        hub = remote_hub(tmp_path, repo, sleep=sleep, clock=lambda: now[0], commits_per_hour=3)
        hub.journal = Journal(tmp_path / "one.jsonl", clock=lambda: now[0])
        send(small_plan(3), hub, progress=False)
    assert [row["status"] for row in server.asked("commit")] == [200] * 8
    assert len(slept) == 2
    assert all(3600 <= seconds <= 3602 for seconds in slept)


def test_the_limit_of_requests_is_waited_for(server: Hub, tmp_path: Path, sleeps: list[float]) -> None:
    server.change(api_requests=12, window=100)
    put(small_plan(3), tmp_path, sleep=server.advance)
    assert any(row["status"] == 429 for row in server.requests)
    server.change(api_requests=None)
    expect_served(small_plan(3))


def test_no_network_is_one_sentence_at_once(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")
    began = time.monotonic()
    with pytest.raises(PrismaError, match=r"found no connection to it \(.*\): connect to the network"):
        send(small_plan(), remote_hub(tmp_path, sleep=None), progress=False)
    assert time.monotonic() - began < 5


def test_an_interruption_does_not_wait_for_labels(server: Hub, tmp_path: Path) -> None:
    """Ctrl-C while a label waits for the Hub: that ends at once, and the same call completes it."""
    server.fail("429", "create_branch", after=1, times=None, seconds=600)
    hub, began = remote_hub(tmp_path, sleep=None), time.monotonic()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    hub.calls.say = interrupted  # in the labeller; then here, on settling
    with pytest.raises(KeyboardInterrupt):
        send(small_plan(3), hub, progress=False)
    with pytest.raises(KeyboardInterrupt), remote_hub(tmp_path, sleep=None, say=lambda _: None).writing():
        raise KeyboardInterrupt
    assert time.monotonic() - began < 20
    server.heal()
    put(small_plan(3), tmp_path)
    expect_served(small_plan(3))


def test_a_label_that_another_made_is_refused(server: Hub, tmp_path: Path) -> None:
    """Between the look and the label, somebody makes the branch at another commit."""
    hub = remote_hub(tmp_path)
    honest = hub.prepare

    def late(commits: Sequence[Commit]) -> None:
        HfApi().create_branch(REPO, branch="step-000001")
        honest(commits)

    hub.prepare = late  # type: ignore[method-assign]
    with pytest.raises(PrismaError, match=r"make the branch step-000001 of lab/tiny; found status 409: Reference"):
        send(small_plan(), hub, progress=False)
    assert "main" not in remote_hub(tmp_path).labels()


def test_a_commit_whose_label_was_not_made_is_not_made_again(server: Hub, tmp_path: Path) -> None:
    server.fail("403", "create_branch", match="step-000000")
    server.fail("403", "create_branch", match="step-000003")
    with pytest.raises(PrismaError, match="no permission"):
        put(small_plan(5), tmp_path)
    made = len(server.asked("commit"))
    assert made > 1
    server.heal()
    put(small_plan(5), tmp_path)
    assert len(server.asked("commit")) == 5 + 1
    titles = [commit.title for commit in HfApi().list_repo_commits(REPO, revision=CHAIN)]
    assert titles[::-1][1:] == [f"Step {i} of run run-0" for i in range(5)]
    HfApi().delete_repo(REPO)
    put(small_plan(5), tmp_path)  # what the journal knows went with the repository
    expect_served(small_plan(5))


def test_a_run_that_comes_back_gets_its_commits_back(server: Hub, tmp_path: Path) -> None:
    put(small_plan(), tmp_path / "one")
    put(small_plan(seed=1), tmp_path / "two", replace=True)
    server.forget()
    put(small_plan(), tmp_path / "one", replace=True)
    assert [row["path"].rpartition("/")[2] for row in server.asked("commit")] == ["main", "main"]
    assert server.asked("lfs_put") == []
    expect_served(small_plan())
