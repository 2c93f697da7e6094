"""The tutorials: their code runs, and prints what stands under it."""

import re
from contextlib import chdir, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

TUTORIALS = sorted((Path(__file__).parents[2] / "docs" / "tutorials").glob("*.md"))


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_its_code_prints_what_it_says(path: Path, tmp_path: Path) -> None:
    text = path.read_text()
    out = StringIO()
    with chdir(tmp_path), redirect_stdout(out):
        exec(compile("\n".join(blocks(text, "python")), path.name, "exec"), {"__name__": "__main__"})
    assert out.getvalue() == "".join(blocks(text, "text"))
