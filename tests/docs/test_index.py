"""The index of the pages on analyses: it lists every page, and every analysis has one."""

import pkgutil
import re
import runpy
from importlib import import_module
from pathlib import Path
from types import FunctionType, ModuleType

import prisma.analysis
from prisma.analysis.result import Result

DOCS = Path(__file__).parents[2] / "docs"
INDEX = DOCS / "analysis" / "README.md"
PAGES = runpy.run_path(str(DOCS.parent / "tools" / "pages.py"))["PAGES"]
MODULES = {
    name.rpartition(".")[2]: name
    for _, name, folder in pkgutil.walk_packages(prisma.analysis.__path__, "prisma.analysis.")
    if not folder
}


def has_an_analysis(module: ModuleType) -> bool:
    """Whether a public function of this module returns a result."""
    own = [f for f in vars(module).values() if isinstance(f, FunctionType) and f.__module__ == module.__name__]
    returned = [f.__annotations__.get("return") for f in own if not f.__name__.startswith("_")]
    return any(isinstance(kind, type) and issubclass(kind, Result) for kind in returned)


def test_it_lists_every_page_and_what_it_lists_exists() -> None:
    links = re.findall(r"\]\((.+?)\)", INDEX.read_text())
    assert {link for link in links if "/" not in link} == {page.name for page in PAGES}
    assert [link for link in links if not (INDEX.parent / link).exists()] == []
    _, tables = INDEX.read_text().split("\n## ", 1)
    for module, name in re.findall(r"`(\w+)\.(\w+)`", tables):
        assert hasattr(import_module(MODULES[module]), name), f"{module}.{name}"


def test_every_analysis_has_a_page_that_imports_it() -> None:
    text = "".join(page.read_text() for page in PAGES)
    analyses = [name for name, module in MODULES.items() if has_an_analysis(import_module(module))]
    assert {"activation_patching", "rollout", "head_scores"} <= set(analyses)
    assert [name for name in analyses if not re.search(rf"{MODULES[name]}\b", text)] == []
