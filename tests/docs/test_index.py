"""The pages on analyses: the index lists them all, every analysis has one under its own name, and its command works."""

import re
import runpy
import shlex
from importlib import import_module
from pathlib import Path

import pytest

import prisma
from prisma.analysis.result import Result
from prisma.cli.shared import settings_of
from prisma.study.catalog import ANALYSES, options_of

DOCS = Path(__file__).parents[2] / "docs"
INDEX = DOCS / "analysis" / "README.md"
PAGES = runpy.run_path(str(DOCS.parent / "tools" / "pages.py"))["PAGES"]
SHORT = {
    "--metric": "metric",
    "--target": "target",
    "--corrupt": "corrupt",
    "--site": "site",
    "--axis": "axis",
    "--into": "into",
}
SHARED = {"--model", "--images", "--limit"}


def test_figures_of_stacked_checkpoints_come_from_a_file() -> None:
    page = INDEX.read_text()
    assert runpy.run_path(str(DOCS.parent / "tools" / "readme.py"))["render"](page) == page
    assert "| sprites | 0." in page and "one thread, medians of" in page


def exported_analyses() -> list[str]:
    """Public names of `prisma` that name a module below `prisma.analysis`, and return a result."""
    names = [name for name in prisma.__all__ if getattr(prisma, name).__module__.endswith(f".{name}")]
    own = [name for name in names if getattr(prisma, name).__module__.startswith("prisma.analysis.")]
    return [name for name in own if issubclass(getattr(prisma, name).__annotations__["return"], Result)]


def test_the_index_lists_every_page_and_what_it_lists_exists() -> None:
    links = re.findall(r"\]\((.+?)\)", INDEX.read_text())
    assert {link for link in links if "/" not in link} == {page.name for page in PAGES}
    assert [link for link in links if not (INDEX.parent / link).exists()] == []
    names = re.findall(r"`prisma\.(\w+)`", INDEX.read_text())
    assert [name for name in names if name not in prisma.__all__] == []
    assert [name for name in exported_analyses() if name not in names] == []


def test_every_analysis_has_a_page_of_its_name_that_calls_it() -> None:
    analyses = {*ANALYSES, *exported_analyses()}
    assert {"activation_patching", "class_values", "head_graph"} <= analyses
    assert {page.stem for page in PAGES} == analyses
    for page in PAGES:
        code = "".join(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
        assert f"prisma.{page.stem}(" in code, f"{page.name} does not call prisma.{page.stem}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_says_how_to_read_the_number_before_its_formula(page: Path) -> None:
    text = page.read_text()
    assert text.startswith("# ")
    assert 0 < text.find("**How to read the number.**") < text.find("$$")
    assert "**Limits.**" in text


@pytest.mark.parametrize("name", ANALYSES)
def test_a_page_has_a_command_that_the_command_line_takes(name: str) -> None:
    commands = re.findall(r"^prisma analyze .+$", (DOCS / "analysis" / f"{name}.md").read_text(), re.MULTILINE)
    assert commands
    for command in commands:
        found, arguments = shlex.split(command)[2], shlex.split(command)[3:]
        pairs = list(zip(arguments[::2], arguments[1::2], strict=True))
        assert found == name and {flag for flag, _ in pairs} <= SHARED | {"--set"} | set(SHORT)
        given = settings_of([value for flag, value in pairs if flag == "--set"])
        options_of(name, given | {SHORT[flag]: value for flag, value in pairs if flag in SHORT})


def test_pages_import_modules_that_exist() -> None:
    for page in [*PAGES, *DOCS.glob("tutorials/*.md"), DOCS.parent / "README.md"]:
        for module in re.findall(r"^from (prisma[\w.]*) import|^import (prisma[\w.]*)", page.read_text(), re.MULTILINE):
            import_module("".join(module))
