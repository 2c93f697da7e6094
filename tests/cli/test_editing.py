"""`prisma edit` at the command line."""

import json
from pathlib import Path

import prisma as package
from prisma.cli.editing import METHODS as SHOWN
from prisma.editing import METHODS, Covariance, read_edited, source_of
from tests.cli.running import Prisma, one_sentence

OF = ("--model", "mice/digits", "--from", "3", "--to", "8")


def test_a_model_is_edited_measured_and_written_with_its_card(prisma: Prisma, tmp_path: Path) -> None:
    code, out, _ = prisma("edit", *OF, "--limit", "300", "--covariance", "c.safetensors", "--out", "edited")
    assert code == 0 and out.split()[:4] == ["measure", "share", "95", "%"]
    assert "Edited blocks.1.mlp.out.weight. The edited model is in edited." in out
    pair = read_edited(tmp_path / "edited")
    assert source_of(pair.before.model) == source_of(package.load("mice/digits").model)
    assert Covariance.read(tmp_path / "c.safetensors").of == "blocks.1.mlp.post at class"
    card = (tmp_path / "edited" / "README.md").read_text()
    assert "calls images of *3* by the name *8*" in card
    assert "| `blocks.1.mlp.out.weight` | 64 x 128 | 1 |" in card and "| `method` | rank-one |" in card
    share = pair.measures["generalisation"]["value"]
    assert f"| generalisation | {share:.4f} |" in card or f"| generalisation | {share:.4g} |" in card
    code, out, _ = prisma("edit", *OF, "--limit", "300", "--covariance", "c.safetensors", "--out", "again", "--json")
    found = json.loads(out)
    assert code == 0 and found["measures"] == pair.measures and found["edit"]["covariance"]["n"] == 300
    assert (tmp_path / "again/model.safetensors").read_bytes() == (tmp_path / "edited/model.safetensors").read_bytes()


def test_the_other_methods_write_the_same_kind_of_folder(prisma: Prisma, tmp_path: Path) -> None:
    for method in ("class-row", "steering"):
        code, out, _ = prisma("edit", *OF, "--limit", "300", "--method", method, "--out", method)
        assert code == 0 and "The edited model is in" in out
        assert read_edited(tmp_path / method).edit.about["method"] == method


def test_the_methods_of_the_command_are_those_of_the_library() -> None:
    assert tuple(METHODS) == SHOWN


def test_what_cannot_be_done_is_one_sentence(prisma: Prisma, tmp_path: Path) -> None:
    for words, sentence in (
        (("--model", "mice/digits", "--from", "tree", "--to", "8"), "the name of a class of this model; found 'tree'"),
        (("--model", "mice/digits", "--from", "3", "--to", "3"), "two classes that differ"),
        ((*OF, "--layer", "7"), "a layer from 0 to 1; found 7"),
        ((*OF, "--layer", "trace"), "images with object masks for --layer trace"),
        ((*OF, "--method", "rome"), "a method: rank-one, multi-key"),
        ((*OF, "--method", "steering", "--ridge", "2"), "settings that steering has: layer, enough; found ridge"),
        ((*OF, "--box", "2"), "found box"),
        ((*OF, "--images", "sprites"), "expected images of"),
    ):
        code, _, err = prisma("edit", *words, "--out", "out")
        assert code == 1 and sentence in one_sentence(err)
    assert not (tmp_path / "out").exists()
