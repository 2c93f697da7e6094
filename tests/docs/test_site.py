"""The documentation site: it builds without a warning, no link is broken, and every public name is documented."""

import inspect
import os
import pkgutil
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import prisma
import prisma.analysis

ROOT = Path(__file__).parents[2]


def public_names() -> dict[str, object]:
    """Full name -> what `prisma` exports, and the public functions and classes that the modules of analyses define."""
    objects = [inspect.unwrap(getattr(prisma, name)) for name in prisma.__all__]  # `prisma.train` wraps its function
    for _, name, folder in pkgutil.walk_packages(prisma.analysis.__path__, "prisma.analysis."):
        found = [] if folder else vars(import_module(name)).items()
        objects += [
            x
            for key, x in found
            if key[0] != "_"
            and (inspect.isfunction(x) or inspect.isclass(x))
            and x.__module__ == name
            and key == x.__name__
        ]
    return {f"{x.__module__}.{x.__qualname__}": x for x in objects}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    told = {"NO_MKDOCS_2_WARNING": "1", "SIGNATURE_LINE": "9999"}  # how signatures are broken is nobody's claim here
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT, env=os.environ | told, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_public_name_has_a_docstring() -> None:
    names = public_names()
    assert {"prisma.analysis.lens.logit_lens.logit_lens", "prisma.edits.Add"} <= set(names)
    assert [name for name, x in names.items() if not (x.__doc__ or "").strip()] == []
    generated = [name for name, x in names.items() if (x.__doc__ or "").startswith(f"{name.rpartition('.')[2]}(")]
    assert generated == [], "a dataclass without a docstring gets its signature as one"


def test_every_public_name_is_in_the_api_reference(site: Path) -> None:
    pages = "".join(page.read_text() for page in (site / "api").glob("*.html"))
    anchors = set(re.findall(r'id="(prisma[\w.]*)"', pages))
    assert [name for name in public_names() if name not in anchors] == []
    index = (site / "api" / "index.html").read_text()
    assert [name for name in prisma.__all__ if f"<code>{name}</code>" not in index] == []


def test_the_site_has_every_page_and_loads_nothing_from_elsewhere(site: Path) -> None:
    made = {page.relative_to(site).as_posix() for page in site.rglob("*.html")}
    for source in (ROOT / "docs").rglob("*.md"):
        name = source.relative_to(ROOT / "docs").with_suffix(".html").as_posix().replace("README", "index")
        assert name in made
    assert {"index.html", "changelog.html", "contributing.html", "security.html", "mice/index.html"} <= made
    assert {f"mice/{card.parent.name}.html" for card in (ROOT / "hub_cards").glob("*/README.md")} <= made
    for page in site.rglob("*.html"):
        assert re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(?:https?:)?//[^"]+', page.read_text()) == [], page
    assert (site / "assets" / "katex" / "katex.min.js").exists()


def test_formulas_are_marked_for_the_renderer(site: Path) -> None:
    for page in (site / "analysis").glob("*.html"):
        if page.stem != "index":
            assert '<div class="arithmatex">' in page.read_text(), page.stem
