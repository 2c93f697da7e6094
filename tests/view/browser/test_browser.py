"""The page's script: all modules in order, no name twice, and nothing that leaves the machine."""

import re

from prisma.view.browser import ASSETS, script, style


def test_every_module_is_in_the_page_once() -> None:
    page = script("page")
    for path in ASSETS.glob("*.js"):
        text = path.read_text()
        for name in re.findall(r"^export (?:const|class|function|async function) (\w+)", text, re.M):
            assert len(re.findall(rf"^(?:const|class|function|async function) {name}\b", page, re.M)) <= 1, name
        assert re.findall(r"^import ", text, re.M) == re.findall(r'^import (?=\{.*\} from "\./\w+\.js";$)', text, re.M)
    assert not re.search(r"^(import|export) ", page, re.M)


def test_no_top_level_name_is_used_twice() -> None:
    names: dict[str, str] = {}
    for path in sorted(ASSETS.glob("*.js")):
        for name in re.findall(r"^(?:export )?(?:const|class|function|async function) (\w+)", path.read_text(), re.M):
            assert names.setdefault(name, path.name) == path.name, f"{name} is in {names[name]} and {path.name}"


def test_strings_become_text_only() -> None:
    for path in ASSETS.glob("*.js"):
        text = path.read_text()
        for danger in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
            assert danger not in text, (path.name, danger)
        assert "http://" not in text and "https://" not in text
    assert "url(" not in style() and "@import" not in style()
