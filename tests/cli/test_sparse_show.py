"""`prisma sparse show`: a folder with the dashboard of a coder."""

from pathlib import Path

from prisma.sparse.coders import CoderConfig, drawn
from prisma.sparse.files import write_coder
from tests.cli.running import Prisma, one_sentence
from tests.sparse.test_dashboard import read

OF = ("--model", "mice/digits", "--images", "digits", "--limit", "20")


def test_a_dashboard_is_written_once(prisma: Prisma, tmp_path: Path) -> None:
    write_coder(tmp_path / "coder", drawn(CoderConfig("topk", 64, 24, 4, ("blocks.0.resid_post",))))
    code, out, _ = prisma("sparse", "show", "coder", *OF, "--out", "shown", "--effect-images", "1", "--title", "Mine")
    assert code == 0 and "latents are active on 20 images" in out and "The dashboard is shown/index.html." in out
    facts, _ = read(tmp_path / "shown/data/latents.js")
    assert facts["title"] == "Mine" and facts["outputs"] == [str(digit) for digit in range(10)]
    code, _, err = prisma("sparse", "show", "coder", *OF, "--out", "shown")
    assert code == 1 and "expected a new or empty folder" in one_sentence(err)
    (tmp_path / "words").write_text("one\ntwo\n")
    code, _, err = prisma("sparse", "show", "coder", *OF, "--out", "new", "--words", "words")
    assert code == 1 and "expected a CLIP to propose names from --words" in one_sentence(err)
    (tmp_path / "words").write_text("\n")
    code, _, err = prisma("sparse", "show", "coder", *OF, "--out", "new", "--prompts", "words")
    assert code == 1 and "expected words in words, one on each line; found none" in one_sentence(err)
