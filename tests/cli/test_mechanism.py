"""`prisma mechanism` prints the findings, writes the files, and changes the card; a mistake changes nothing."""

import json
import re
import shutil
import signal
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from prisma.mechanisms import Mechanism, page, section
from prisma.publish import audit
from prisma.publish.mechanism_section import section_in
from prisma.repository import Published
from tests import processes
from tests.cli.commands import command_killed_at
from tests.cli.running import Prisma

mechanisms = import_module("prisma.mechanisms.mechanism")
FEW = ("--limit", "16", "--pairs", "8")


def test_of_a_run_folder(prisma: Prisma, run: Path) -> None:
    (run / "README.md").write_text("# Mine\n")
    before = sorted(run.rglob("*"))
    code, out, err = prisma("mechanism", str(run), *FEW, "--dry-run")
    assert code == 0 and sorted(run.rglob("*")) == before and "would be written" in err
    code, again, err = prisma("mechanism", str(run), *FEW)
    assert code == 0 and again == out and "How often it is right" in out
    card = Mechanism.parse((run / "mechanism.json").read_bytes())
    assert (run / "mechanism.md").read_text() == page(card)
    assert section_in((run / "README.md").read_text()) == section(card)
    assert not list(run.glob(".mechanism*")) and (run / "mechanism" / "heads.png").is_file()
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    code, out, _ = prisma("mechanism", str(run), *FEW, "--json")
    assert code == 0 and json.loads(out) == json.loads(card.to_json())
    assert files == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_of_a_published_mouse(prisma: Prisma, hub: Path, tmp_path: Path) -> None:
    before = Published("lab/tiny", hub).file("README.md").read_bytes()
    code, _, err = prisma("mechanism", "lab/tiny", "--hub", str(hub), *FEW, "--dry-run")
    assert code == 0 and "main of lab/tiny would get: README.md, mechanism.md" in err
    assert Published("lab/tiny", hub).file("README.md").read_bytes() == before and not (tmp_path / "runs").exists()
    code, _, err = prisma("mechanism", "lab/tiny", "--hub", str(hub), *FEW)
    assert code == 0 and "Wrote into main of lab/tiny: README.md" in err
    assert (tmp_path / "runs" / "mechanism-tiny" / "mechanism.md").is_file()
    assert not audit("lab/tiny", hub)
    code, _, err = prisma("mechanism", "lab/tiny", "--hub", str(hub), *FEW, "--out", "other")
    assert code == 0 and "has this mechanism card already" in err and (tmp_path / "other" / "mechanism.json").is_file()


@pytest.mark.parametrize("at", ["write_mechanism", "publish_mechanism"])
def test_a_kill_before_the_files_or_the_commit_loses_no_step(
    prisma: Prisma, hub: Path, tmp_path: Path, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("mechanism", "lab/tiny", "--hub", str(hub), *FEW, "--out", str(tmp_path / "new"))
    function = f"prisma.publish.mechanism_card.{at}"
    child = processes.context().Process(target=command_killed_at, args=(words, tmp_path / "stderr", function))
    child.start()
    assert processes.ended(child) == -signal.SIGKILL, (tmp_path / "stderr").read_text()
    assert (tmp_path / "new" / "mechanism.json").exists() == (at == "publish_mechanism")
    monkeypatch.setattr(mechanisms, "_ran", None)  # a step that was measured again would call it
    code, out, err = prisma(*words)
    assert code == 0 and "How often it is right" in out and "Wrote into main of lab/tiny: README.md" in err
    assert (tmp_path / "new" / "mechanism.json").is_file() and not list((tmp_path / "new").glob(".mech*"))


def test_a_folder_that_cannot_be_made_is_refused_before_any_step(
    mistake: Callable[..., str], run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mechanisms, "_ran", None)
    said = mistake("mechanism", str(run), *FEW, "--out", "full/thesis.tex/new")
    assert re.search(r"expected a folder at /.*/full/thesis.tex; found a file$", said.strip())
    shutil.rmtree(run / "checkpoints")
    monkeypatch.setattr("prisma.files.os.access", lambda *_: False)  # a superuser may
    assert f"could not write {run}: Permission denied; choose a folder" in mistake("mechanism", str(run), *FEW)


def test_mistakes_are_one_sentence(mistake: Callable[..., str], hub: Path, run: Path) -> None:
    assert "expected a mouse" in mistake("mechanism", "timm/vit_tiny_patch16_224")
    assert "there is no mouse" in mistake("mechanism", "mice/none")
    assert "a commit of a hub" in mistake("mechanism", str(Published("lab/tiny", hub).file("README.md").parent), *FEW)
    assert "found a file" in mistake("mechanism", "mice/circle", "--out", "full/thesis.tex")
    assert "expected --sign with a published mouse" in mistake("mechanism", str(run), "--sign", "key.pem")
    (run / "README.md").write_text("<!-- mechanism -->\n")
    shutil.rmtree(run / "checkpoints")
    assert "in the card" in mistake("mechanism", str(run), *FEW)
    assert not (run / "mechanism.md").exists() and not (run / "mechanism.json").exists()
