"""The pages on analyses: their code runs on shipped mice, prints what stands under it, and makes their pictures."""

import re
import runpy
from pathlib import Path

import pytest

from tests.docs.printed import expect_printed

DOCS = Path(__file__).parents[2] / "docs"
MAKER = runpy.run_path(str(DOCS.parent / "tools" / "pages.py"))
PAGES, rendered = MAKER["PAGES"], MAKER["rendered"]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_says_what_its_code_prints_and_shows_what_it_draws(path: Path, tmp_path: Path) -> None:
    text = path.read_text()
    expect_printed(rendered(text, tmp_path), text)
    pictures = re.findall(r"!\[.+?\]\((.+?)\)", text)
    assert pictures, "a page has a picture"
    assert {picture.name for picture in tmp_path.iterdir()} >= set(pictures)
    assert all((path.parent / picture).exists() for picture in pictures)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_has_its_formula_and_its_source(path: Path) -> None:
    text = path.read_text()
    assert "$$" in text
    assert "arxiv.org/abs/" in text or "transformer-circuits.pub" in text
