"""Sparse coders at the command line."""

import json
from pathlib import Path

import pytest

import prisma as package
from prisma.sparse.coders import KINDS
from prisma.sparse.evaluated import read_evaluation
from prisma.sparse.files import read_coder
from tests.cli.running import Prisma, one_sentence

OF = ("--model", "mice/digits", "--images", "digits")
SITE = ("--site", "blocks.0.resid_post")
QUICK = (*SITE, "--width", "32", "--k", "4", "--steps", "20", "--batch", "64")


def test_a_coder_is_trained_measured_and_continued(prisma: Prisma, tmp_path: Path) -> None:
    code, out, _ = prisma("sparse", "train", *OF, *QUICK, "--limit", "40", "--out", "coder")
    assert code == 0 and out.startswith("Trained Coder(topk, ") and "fvu_held_out " in out
    coder = read_coder(tmp_path / "coder")
    assert coder.site == "blocks.0.resid_post" and coder.config.k == 4
    code, out, _ = prisma("sparse", "eval", "coder", *OF, "--limit", "40", "--baseline-steps", "5", "--json", "--write")
    rows = json.loads(out)
    kept = read_evaluation(tmp_path / "coder")
    assert (kept["images"], kept["n"], kept["rows"]) == ("digits", 40, rows)
    assert code == 0 and [row["coder"] for row in rows if row["tokens"] == "all"][1:] == [
        "random decoder", "random encoder", "pca", "neurons",
    ]  # fmt: skip
    code, out, _ = prisma("sparse", "eval", "coder", *OF, "--limit", "40", "--baseline-steps", "0")
    assert code == 0 and f"{rows[0]['fvu']:.4g}" in out and out.split()[:4] == ["coder", "tokens", "fvu", "l0"]
    assert {"probe_5", "tpp"} <= set(out.splitlines()[0].split()) and rows[0]["tpp"] == kept["rows"][0]["tpp"]
    code, out, _ = prisma("sparse", "train", *OF, *QUICK, "--limit", "40", "--out", "coder", "--resume")
    assert code == 0 and "Trained Coder" in out


def test_the_help_of_training_names_every_kind(prisma: Prisma) -> None:
    words = set(prisma("sparse", "train", "--help")[1].replace(",", " ").replace(".", " ").split())
    assert set(KINDS) <= words


def test_options_of_a_training_reach_it(prisma: Prisma, tmp_path: Path) -> None:
    more = ("--kind", "matryoshka", "--prefix", "8", "--prefix", "32", "--checkpoint-every", "10", "--dead-after", "99")
    code, _, _ = prisma("sparse", "train", *OF, *QUICK, *more, "--limit", "40", "--out", "coder")
    coder = read_coder(tmp_path / "coder")
    assert code == 0 and coder.config.prefixes == (8, 32)
    assert len(list((tmp_path / "coder" / "checkpoints").iterdir())) == 2
    code, _, err = prisma("sparse", "train", *OF, *QUICK, "--sparsity", "-1", "--out", "other")
    assert code == 1 and "expected sparsity to be a number of 0 or more; found -1.0" in one_sentence(err)


@pytest.mark.filterwarnings("default")
def test_a_warning_is_one_sentence(prisma: Prisma) -> None:
    prisma("sparse", "train", *OF, *QUICK, "--limit", "40", "--out", "coder")
    other = ("--site", "blocks.1.mlp_out", "--limit", "40", "--baseline-steps", "0")
    code, _, err = prisma("sparse", "eval", "coder", *OF, *other)
    assert code == 0 and err.splitlines()[-1].startswith("prisma: this coder ")


def test_activations_are_written_and_trained_on(prisma: Prisma, tmp_path: Path) -> None:
    code, out, _ = prisma("activations", *OF, *SITE, "--limit", "40", "--shard-size", "16", "--out", "acts")
    assert code == 0 and "Wrote activations of 40 images at blocks.0.resid_post to acts." in out
    code, out, _ = prisma("sparse", "train", "--activations", "acts", *QUICK, "--out", "coder")
    assert code == 0 and package.load_coder(tmp_path / "coder").config.width == 32


def test_what_cannot_be_done_is_one_sentence(prisma: Prisma) -> None:
    code, _, err = prisma("sparse", "train", *QUICK, "--out", "coder")
    assert code == 1 and "expected --model and --images, or --activations; found neither or both" in one_sentence(err)
    code, _, err = prisma("sparse", "eval", "nowhere", *OF, "--limit", "4")
    assert code == 1 and "expected a folder with a sparse coder" in one_sentence(err)
