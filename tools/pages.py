"""The pages on analyses, and tutorials: run their code, write what it prints, and put its pictures next to them.

python tools/pages.py [NAME ...]          a page of docs/analysis, or tutorials/circuit, and so on

Code that uses a real model finds it under the name `real/NAME`, where `tools/real_models.py` wrote it.
"""

import os
import re
import shutil
import sys
from contextlib import chdir, redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "analysis"
PAGES = sorted(page for page in FOLDER.glob("*.md") if page.stem != "README")  # which is their index
TUTORIALS = tuple(
    ROOT / "docs" / "tutorials" / f"{name}.md" for name in ("circuit", "class-space", "features", "language", "sparse")
)
# These use real models, which only `make real` has.
REAL = tuple(ROOT / "docs" / "tutorials" / f"{name}.md" for name in ("attribution", "dinov2"))
PICTURE = re.compile(r"!\[.+?\]\((.+?)\)")
CODE = re.compile(r"```python\n(.*?)```(?:\n```text\n(.*?)```)?", re.DOTALL)


def run(text: str, folder: Path) -> list[str]:
    """What each block of Python of a page prints, run one after the other in `folder`."""
    names: dict[str, object] = {"__name__": "__main__"}
    printed = []
    with chdir(folder):
        for match in CODE.finditer(text):
            out = StringIO()
            with redirect_stdout(out):
                exec(compile(match[1], "page", "exec"), names)
            printed.append(out.getvalue())
    return printed


def rendered(text: str, folder: Path) -> str:
    """The page, with what its code prints under each block."""
    printed = iter(run(text, folder))

    def block(match: re.Match[str]) -> str:
        output = next(printed)
        return f"```python\n{match[1]}```" + (f"\n```text\n{output}```" if output else "")

    return CODE.sub(block, text)


def make(page: Path) -> None:
    """Write the page anew, and its pictures."""
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "real").symlink_to(ROOT / "real")
        text = rendered(page.read_text(), folder)
        for picture in PICTURE.findall(text):
            if (folder / picture).exists():  # not one of the app, which tools/screenshot.py makes
                shutil.copyfile(folder / picture, page.parent / picture)
        page.write_text(text)


def main() -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    named = [(FOLDER.parent if "/" in name else FOLDER) / f"{name}.md" for name in sys.argv[1:]]
    for page in named or [*PAGES, *TUTORIALS]:
        make(page)


if __name__ == "__main__":
    main()
