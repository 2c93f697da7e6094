"""The tutorials: their code runs, and prints what stands under it."""

import re
from contextlib import chdir, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from tests.docs.printed import expect_printed

ROOT = Path(__file__).parents[2]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
REAL = {"attribution", "dinov2"}  # those with real weights, which `make real` runs


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=pytest.mark.real if path.stem in REAL else ()) for path in TUTORIALS],
    ids=lambda path: path.stem,
)
def test_its_code_prints_what_it_says(path: Path, tmp_path: Path) -> None:
    text = path.read_text()
    (tmp_path / "real").symlink_to(ROOT / "real")
    out = StringIO()
    with chdir(tmp_path), redirect_stdout(out):
        exec(compile("\n".join(blocks(text, "python")), path.name, "exec"), {"__name__": "__main__"})
    expect_printed(out.getvalue(), "".join(blocks(text, "text")))
