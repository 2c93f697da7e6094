"""Publishing from the command line, and finding a label that serves other weights."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants

from prisma.cli.publishing import duration, forecast_text
from prisma.files import read_json, write_json
from tests.cli.running import Prisma, one_sentence
from tests.hubserver.running import Hub, use
from tests.publish.keys import pair
from tests.run_edits import accept_changes

SMALL = ("--set", "steps=3", "--set", "warmup=1", "--set", "d_model=8", "--set", "n_heads=2", "--set", "d_mlp=8")


def test_train_publish_audit_and_back(prisma: Prisma, tmp_path: Path) -> None:
    code, out, err = prisma("train", "digits", *SMALL, "--json")
    assert code == 0, err
    assert json.loads(out)["results"]
    code, out, err = prisma("publish", "runs/digits", "lab/tiny", "--hub", "hub", "--json")
    assert code == 0, err
    assert json.loads(out)["changed"] is True
    assert "up to date" in prisma("publish", "runs/digits", "lab/tiny", "--hub", "hub")[1]
    code, out, err = prisma("audit", "lab/tiny", "--hub", "hub")
    assert code == 0, err
    assert "lab/tiny: 4 checkpoints" in out  # steps 0, 1, 2 and the last
    blob = next(p for p in (tmp_path / "hub").rglob("step-000002") if p.is_file())
    assert blob.parent.name == "refs"
    blob.write_text((blob.parent / "step-000001").read_text())
    code, out, _ = prisma("audit", "lab/tiny", "--hub", "hub")
    assert code == 1
    assert "step-000002" in out


@pytest.mark.parametrize(
    ("command", "expected", "found"),
    [
        (["publish", "absent", "lab/tiny", "--hub", "hub"], "absent", "run"),
        (["publish", "full", "lab/tiny", "--hub", "hub"], "full", "run"),
        (["publish", "full", "not a name", "--hub", "hub"], "OWNER/NAME", "not a name"),
        (["audit", "lab/tiny", "--hub", "absent"], "folder hub", "absent"),
    ],
)
def test_mistakes_get_one_sentence(mistake: Callable[..., str], command: list[str], expected: str, found: str) -> None:
    err = mistake(*command)
    assert expected in err
    assert found in err


def test_a_run_is_compared_watched_and_taken_back(prisma: Prisma, run: Path, hub: Path) -> None:
    where = ("lab/tiny", "--hub", str(hub))
    code, out, err = prisma("diff", str(run), *where)
    assert (code, out.strip()) == (0, f"lab/tiny serves {run}."), err
    code, out, _ = prisma("diff", str(run), "lab/other", "--hub", str(hub), "--json")
    assert code == 1
    assert json.loads(out)[-1] == {"revision": "main", "file": "", "found": "not published"}
    code, out, err = prisma("publish", str(run), "lab/other", "--hub", str(hub), "--watch", "--json")
    assert code == 0, err
    assert json.loads(out)["changed"] is True
    code, out, err = prisma("yank", "lab/tiny", "step-000002", "--why", "a wrong label", "--hub", str(hub))
    assert code == 0, err
    assert "its weights are kept as yanked-step-000002" in out
    code, out, _ = prisma("yank", "lab/tiny", "step-000002", "--why", "a wrong label", "--hub", str(hub), "--json")
    assert (code, json.loads(out)["changed"]) == (0, False)
    assert "step-000003" in one_sentence(prisma("yank", "lab/tiny", "step-000003", "--why", "x", "--hub", str(hub))[2])


def test_a_dry_run_says_what_would_be_done(prisma: Prisma, run: Path, tmp_path: Path) -> None:
    code, out, err = prisma("publish", str(run), "lab/tiny", "--hub", "hub", "--dry-run")
    assert code == 0, err
    assert re.match(r"lab/tiny in hub would get \d+ files \(\d+\.\d MB\) in 6 commits, in about 1 second", out)
    assert "New or moved revisions: step-000000, step-000001" in out
    assert not (tmp_path / "hub").exists()
    found = json.loads(prisma("publish", str(run), "lab/tiny", "--hub", "hub", "--dry-run", "--json")[1])
    assert (found["changed"], found["commits"], len(found["revisions"])) == (True, 6, 6)
    prisma("publish", str(run), "lab/tiny", "--hub", "hub")
    assert "nothing would be written" in prisma("publish", str(run), "lab/tiny", "--hub", "hub", "--dry-run")[1]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "1 second"), (59.5, "60 seconds"), (101, "2 minutes"), (7300, "3 hours")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_forecast_in_words() -> None:
    values = {"repo": "a/b", "hub": "h", "changed": True, "files": 2, "bytes": 3e6, "commits": 4, "requests": 5}
    values["warnings"] = ["expected a license; found none"]
    text = forecast_text({**values, "seconds": 6, "revisions": ["main"], "removed": ["step-000001"], "seen": False})
    assert "a/b in h would get 2 files (3.0 MB) in 4 commits, with about 5 requests, in about 6 seconds." in text
    assert "Removed revisions: step-000001.\nAll counts as new" in text
    assert text.endswith("\nWarning: expected a license; found none.")


def test_what_the_hub_may_not_know_is_said_before_and_after(prisma: Prisma, run: Path) -> None:
    write_json(run / "recipe.json", {**read_json(run / "recipe.json"), "license": "my-own"})
    accept_changes(run)
    to = ("publish", str(run), "lab/tiny", "--hub", "hub")
    words = "expected a license that the Hub lists"
    assert f"\nWarning: {words}" in prisma(*to, "--dry-run")[1]
    assert words in json.loads(prisma(*to, "--dry-run", "--json")[1])["warnings"][0]
    for changed in (True, False):
        code, out, err = prisma(*to, "--json")
        assert (code, json.loads(out)["changed"]) == (0, changed)
        assert f"prisma: warning: {words}" in err


def test_who_may_not_write_is_told_so(prisma: Prisma, server: Hub, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_another")
    code, out, err = prisma("publish", str(run), "lab/tiny", "--public")
    assert (code, out) == (1, "")
    assert "run `hf auth login`" in one_sentence(err)
    assert "hf_of_another" not in err
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in one_sentence(prisma("publish", str(run), "lab/tiny")[2])


def test_audits_print_a_list_for_scripts(prisma: Prisma, mistake: Callable[..., str], hub: Path) -> None:
    assert json.loads(prisma("audit", "lab/tiny", "--hub", str(hub), "--json")[1]) == []
    (hub / "models--lab--tiny/refs/step-000002").unlink()
    code, out, _ = prisma("audit", "lab/tiny", "--hub", str(hub), "--json", "--deep")
    problem = "expected a label for this step of the manifest; found none"
    assert (code, json.loads(out)) == (1, [{"revision": "step-000002", "problem": problem}])
    code, out, _ = prisma("audit", "lab/t*", "--hub", str(hub))
    assert code == 1
    assert out.splitlines()[1].split(maxsplit=1) == ["step-000002", problem]
    assert "whose names begin as lab/x*" in mistake("audit", "lab/x*", "--hub", str(hub))


def test_the_hub_itself_is_audited(
    prisma: Prisma, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished_run, tmp_path / "sent")
    with Hub(tmp_path / "root") as server:
        use(monkeypatch, server.url, tmp_path / "cache")
        assert prisma("publish", str(tmp_path / "sent"), "lab/tiny", "--json")[0] == 0
        assert prisma("audit", "lab/tiny", "--json")[:2] == (0, "[]\n")
        server.api.create_branch("lab/tiny", branch="step-000003", revision="main")
        code, out, _ = prisma("audit", "lab/tiny", "--json")
        assert code == 1
        assert {finding["revision"] for finding in json.loads(out)} == {"step-000003"}


def test_the_hub_itself_is_where_a_run_goes_without_a_folder(prisma: Prisma, run: Path, server: Hub) -> None:
    code, out, err = prisma("publish", str(run), "lab/tiny", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert {"repo", "commit", "revisions", "requests", "bytes"} <= report.keys()
    assert (report["repo"], report["changed"], report["hub"]) == ("lab/tiny", True, server.url)
    assert server.token not in out + err
    assert json.loads(prisma("publish", str(run), "lab/tiny", "--json")[1])["changed"] is False
    assert prisma("diff", str(run), "lab/tiny")[0] == 0
    assert server.api.model_info("lab/tiny").private
    assert json.loads(prisma("publish", str(run), "lab/tiny", "--public", "--json")[1])["changed"] is True
    assert not server.api.model_info("lab/tiny").private


def test_a_data_set_is_published_compared_and_audited(prisma: Prisma, tmp_path: Path) -> None:
    where = ("--hub", "hub")
    code, out, err = prisma("publish", "task:circle-7", "lab/rings", *where, "--dry-run")
    assert code == 0, err
    assert out.startswith("lab/rings in hub would get 4 files (0.0 MB) in 1 commit, in about 1 second.")
    assert prisma("publish", "task:circle-7", "lab/rings", *where)[1] == (
        "Published lab/rings in hub: every file was verified.\n"
    )
    code, out, err = prisma("publish", "task:circle-7", "lab/rings", *where, "--json")
    assert (json.loads(out)["changed"], json.loads(out)["revisions"]) == (False, []), err
    assert prisma("diff", "task:circle-7", "lab/rings", *where)[1] == "lab/rings serves task:circle-7.\n"
    code, out, err = prisma("audit", "datasets/lab/rings", *where, "--deep")
    assert (code, out) == (0, "datasets/lab/rings: main has the files of the manifest.\n"), err
    assert prisma("audit", "lab/rings", *where)[0] == 1


def test_a_signature_is_made_and_verified(prisma: Prisma, run: Path, tmp_path: Path) -> None:
    private, public = pair(tmp_path)
    code, _, err = prisma("publish", str(run), "lab/tiny", "--hub", "hub", "--sign", str(private))
    assert code == 0, err
    code, out, err = prisma("audit", "lab/tiny", "--hub", "hub", "--key", str(public))
    assert code == 0, err
    assert out == "lab/tiny: 5 checkpoints and main have the files of the manifest, which is signed by this key.\n"
    code, out, _ = prisma("audit", "lab/tiny", "--hub", "hub", "--key", str(pair(tmp_path, "other")[1]), "--json")
    assert code == 1
    assert [row["revision"] for row in json.loads(out)] == ["main"]


def test_mistakes_about_things_get_one_sentence(mistake: Callable[..., str]) -> None:
    for command, words in (
        (["publish", "task:circel", "lab/rings", "--hub", "hub"], "there is no task 'circel'; the nearest: circle"),
        (
            ["publish", "full", "lab/x", "--hub", "hub", "--base-model", "lab/y"],
            "expected no base model and no license",
        ),
        (["publish", "full", "lab/x", "--hub", "hub", "--watch", "--license", "mit"], "expected no base model"),
        (["publish", "full", "lab/x", "--hub", "hub", "--sign", "full/thesis.tex"], "expected a private key"),
        (["publish", "task:circle-7", "lab/x", "--hub", "hub", "--public"], "no option `public`"),
    ):
        assert words in mistake(*command), command
