"""The page on optimised images: its figures are those of the files that hold them."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_its_figures_come_from_files() -> None:
    page = (ROOT / "docs" / "features.md").read_text()
    assert runpy.run_path(str(ROOT / "tools" / "readme.py"))["render"](page) == page
    assert "| FFT |" in page
