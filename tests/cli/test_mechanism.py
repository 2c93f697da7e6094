"""`prisma mechanism` prints the findings, writes the files, and changes the card; a mistake changes nothing."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from prisma.mechanisms import Mechanism, page, section
from prisma.publish import audit
from prisma.publish.mechanism_section import section_in
from prisma.repository import Published
from tests.cli.running import Prisma

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
