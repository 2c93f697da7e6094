"""The published failure patterns are found in repositories of others: on a Hub, and in a folder hub."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from prisma.publish import Finding, audit
from prisma.publish.commits import Commit, File
from prisma.publish.folder_hub import FolderHub
from prisma.repository import Published
from tests.hubserver.making import add
from tests.hubserver.running import Hub, use
from tests.publish.places import found

Files = Mapping[str, bytes]
SAFE, PICKLE, CONFIG = "model.safetensors", "pytorch_model.bin", "config.json"


def tensors(i: int, **header: str) -> bytes:
    return save({"w": torch.full((3, 2), float(i))}, header or None)


def whole(i: int) -> Files:
    return {SAFE: tensors(i), CONFIG: b'{"model_type": "gpt_neox"}'}


def sharded(*values: int) -> Files:
    n = len(values)
    return {f"model-{i:05d}-of-{n:05d}.safetensors": tensors(value) for i, value in enumerate(values, 1)}


Serve = Callable[[Mapping[str, Files]], Callable[..., list[Finding]]]


@pytest.fixture(params=["folder", "Hub"])
def serve(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Let a repository lab/suite, or several, serve files by label; what comes back audits it.

    A label with a slash after a name that begins with @ is of another repository: @bert-step_1k/main.
    """
    server = None
    if request.param == "Hub":
        server = Hub(tmp_path / "root").__enter__()
        use(monkeypatch, server.url, tmp_path / "cache")
        request.addfinalizer(server.__exit__)

    def place(label: str) -> tuple[str, str]:
        repo, _, rest = label.partition("/")
        return (f"lab/{repo[1:]}", rest) if label.startswith("@") else ("lab/suite", label)

    def make(labels: Mapping[str, Files]) -> Callable[..., list[Finding]]:
        for label, files in labels.items():
            repo, branch = place(label)
            if server is None:
                writer = FolderHub(Published(repo, tmp_path / "hub"))
                with writer.writing():
                    writer.put(branch, Commit(tuple(File.of(name, data) for name, data in files.items())), "")
                continue
            server.api.create_repo(repo, exist_ok=True)
            if branch != "main":
                first = server.api.list_repo_commits(repo)[-1].commit_id
                server.api.create_branch(repo, branch=branch, revision=first)
            if files:
                server.api.create_commit(repo, add(dict(files)), commit_message="x", revision=branch)
        hub = tmp_path / "hub" if server is None else None
        return lambda repo="lab/suite", deep=False: audit(repo, hub, deep)

    return make


NAMES = {
    "Pythia": ("step{}", (0, 1, 2, 4, 8, 1000, 2000, 3000)),
    "OLMo": ("step{}-tokens4B", (1000, 2000, 3000, 4000)),
    "OLMo 2": ("stage1-step{}-tokens428B", (1000, 2000, 3000, 4000)),
    "CRFM": ("checkpoint-{}", (10, 20, 30, 100, 150, 200, 250)),
    "Amber": ("ckpt_{:03d}", (0, 1, 2, 3)),
    "FineWeb": ("step-{:06d}-2BT", (1000, 2000, 3000)),
}


def suite(layout: str) -> dict[str, Files]:
    form, steps = NAMES[layout]
    made = {form.format(step): whole(i) for i, step in enumerate(steps)}
    return {"main": whole(len(steps) - 1), **made}


@pytest.mark.parametrize("layout", NAMES)
def test_a_whole_suite_has_no_problem(serve: Serve, layout: str) -> None:
    run = serve(suite(layout))
    assert run() == []
    assert run(deep=layout == "Pythia") == []


def test_a_copied_branch_is_found(serve: Serve) -> None:
    """As in pythia-2.8b: branches that serve the final weights."""
    run = serve({**suite("Pythia"), "step2": whole(7), "step1000": whole(7)})
    assert [finding.revision for finding in run()] == ["step2", "step1000"]
    assert run()[0].problem == "expected weights of its own; found model.safetensors of main"


def test_equal_weights_at_two_steps_are_found(serve: Serve) -> None:
    """As in OLMo 2; but that step 1 equals step 0 is the first learning rate of Pythia."""
    run = serve({**suite("Pythia"), "step1": whole(0), "step2000": whole(5)})
    findings = run()
    assert [finding.revision for finding in findings] == ["step2000"]
    assert "found model.safetensors of step1000" in findings[0].problem


def test_values_that_are_equal_in_another_file_are_found_by_reading_them(serve: Serve) -> None:
    made = suite("OLMo")
    made["step3000-tokens4B"] = {SAFE: tensors(1, step="3000")}
    made["step1000-tokens4B"] = {SAFE: tensors(0, step="7")}
    run = serve(made)
    assert run() == []
    findings = run(deep=True)
    assert found(findings, "step3000-tokens4B", "found the values of step2000-tokens4B in another file")
    assert found(findings, "step1000-tokens4B", "expected weights of step 1,000; found a header that states step 7")


def test_shards_of_another_step_are_found(serve: Serve) -> None:
    """As in two branches of pythia-12b, where one shard of two was the final model's."""
    made = {f"step{1000 * i}": sharded(10 * i, 10 * i + 1) for i in range(1, 5)}
    made["step2000"] = sharded(20, 41)
    findings = serve({"main": sharded(40, 41), **made})()
    assert [finding.revision for finding in findings] == ["step2000"]
    assert "found model-00002-of-00002.safetensors of main among its 2 files" in findings[0].problem


def test_a_missing_shard_is_found(serve: Serve) -> None:
    made = {f"step{1000 * i}": sharded(10 * i, 10 * i + 1) for i in range(1, 4)}
    made["step2000"] = dict([*sharded(20, 21).items()][1:])
    findings = serve({"main": sharded(30, 31), **made})()
    assert found(
        findings, "step2000", "expected all 2 shards of the weights; found no model-00001-of-00002.safetensors"
    )


def test_a_missing_step_is_expected_from_the_spacing_of_the_others(serve: Serve) -> None:
    made = suite("Pythia")
    del made["step2000"], made["step2"]
    findings = serve({**made, "step4000": whole(8), "step5000": whole(9), "main": whole(9)})()
    assert {finding.revision: finding.problem for finding in findings} == {
        "step2000": "expected step 2,000 from the spacing of the others (every 1,000); found none"
    }


def test_an_empty_branch_is_found(serve: Serve) -> None:
    findings = serve({**suite("Amber"), "ckpt_002": {"notes.md": b"soon"}})()
    assert [(f.revision, f.problem) for f in findings] == [("ckpt_002", "expected weights of step 2; found notes.md")]


def test_inherited_weights_beside_new_ones_are_found(serve: Serve) -> None:
    """A branch that was made from main, and then got its own weights in another format."""
    made = suite("Pythia")
    made["step1000"] = {SAFE: tensors(7), PICKLE: b"\x80\x04 of step 1000"}
    findings = serve(made)()
    assert found(findings, "step1000", "found model.safetensors of main beside pytorch_model.bin of its own")
    assert found(findings, "step1000", "found pytorch_model.bin (a pickle, which runs code when it is opened)")
    assert not found(findings, "step1000", "weights of its own")


def test_formats_of_two_commits_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them was uploaded again. A folder hub has no history, so this can be seen on the Hub only."""
    with Hub(tmp_path / "root") as server:
        use(monkeypatch, server.url, tmp_path / "cache")
        server.api.create_repo("lab/suite")
        for i in range(3):
            server.api.create_branch("lab/suite", branch=f"step{i + 1}000")
            both = {SAFE: tensors(i), "flax_model.msgpack": b"%d" % i}
            server.api.create_commit("lab/suite", add(both), commit_message="x", revision=f"step{i + 1}000")
        assert not found(audit("lab/suite"), "step2000", "one commit")
        server.api.create_commit("lab/suite", add({SAFE: tensors(9)}), commit_message="new", revision="step2000")
        findings = audit("lab/suite")
    assert found(
        findings, "step2000", "expected all formats of the weights from one commit; found model.safetensors of"
    )
    assert {finding.revision for finding in findings} == {"step2000"}


def test_unsafe_files_are_found_anywhere(serve: Serve) -> None:
    made = suite("Amber")
    made["main"] = {**made["main"], "evil.html": b"<script>", "run.sh": b"rm"}
    findings = serve(made)()
    assert [finding.revision for finding in findings] == ["main"]
    assert "evil.html (a web page, which runs scripts), run.sh (a program)" in findings[0].problem


def test_checkpoints_in_folders_of_one_branch(serve: Serve) -> None:
    """As the Trainer of transformers pushes them."""
    files = dict(whole(9))
    for i, step in enumerate((500, 1000, 1500, 2500)):
        files |= {f"runs/checkpoint-{step}/{name}": data for name, data in whole(i).items()}
    files["runs/checkpoint-1500/model.safetensors"] = tensors(1)
    run = serve({"main": files})
    findings = run(deep=True)
    assert found(findings, "runs/checkpoint-1500", "found model.safetensors of runs/checkpoint-1000")
    assert found(findings, "checkpoint-2000", "expected step 2,000 from the spacing of the others (every 500)")
    assert len(findings) == 2


def test_a_repository_for_each_checkpoint(serve: Serve, request: pytest.FixtureRequest) -> None:
    """As MultiBERTs: given by their names, or by how these begin."""
    names = [f"bert-seed_1-step_{20 * i}k" for i in range(6) if i != 3]
    made = {f"@{name}/main": whole(i) for i, name in enumerate(names)}
    made["@bert-seed_1-step_80k/main"] = whole(1)
    run = serve(made)
    findings = run([f"lab/{name}" for name in names])
    assert found(findings, "lab/bert-seed_1-step_80k", "found model.safetensors of lab/bert-seed_1-step_20k")
    assert found(findings, "bert-seed_1-step_60k", "expected step 60,000 from the spacing of the others (every 20,000)")
    assert len(findings) == 2
    assert run("lab/bert-seed_1-*") == findings


def test_a_repository_without_steps_says_so(serve: Serve) -> None:
    findings = serve({"main": whole(0), "v1.0": whole(0)})()
    assert [(finding.revision, "named by steps" in finding.problem) for finding in findings] == [("main", True)]


def test_thousands_of_copies_are_compared_in_seconds(tmp_path: Path) -> None:
    folder = Published("lab/suite", tmp_path / "hub").folder
    writer = FolderHub(Published("lab/suite", tmp_path / "hub"))
    with writer.writing():
        commit = writer.put("main", Commit((File.of(SAFE, tensors(0)),)), "")
    for i in range(3000):
        (folder / "refs" / f"step{i}").write_text(commit)
    findings = audit("lab/suite", tmp_path / "hub")
    assert len(findings) == 2999  # all but the last step
