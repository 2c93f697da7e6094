"""The pages on analyses, and a tutorial: run their code where they stand, so that pictures land next to them, and write
what it prints.

python tools/pages.py [NAME ...]          a page of docs/analysis, or tutorials/circuit
"""

import os
import re
import sys
from contextlib import chdir, redirect_stdout
from io import StringIO
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "docs" / "analysis"
PAGES = sorted(page for page in FOLDER.glob("*.md") if page.stem != "README")  # which is their index
TUTORIALS = (FOLDER.parent / "tutorials" / "circuit.md",)  # those whose code leaves nothing but pictures
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


def main() -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    named = [(FOLDER.parent if "/" in name else FOLDER) / f"{name}.md" for name in sys.argv[1:]]
    for page in named or [*PAGES, *TUTORIALS]:
        page.write_text(rendered(page.read_text(), page.parent))


if __name__ == "__main__":
    main()
