"""How views travel: as files named by their content, strings never through a template."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from prisma_app.panel import TEMPLATE, answer, panel, payload, refusal

from prisma import PrismaError
from prisma.view.browser import VIEWERS, View, numbers, script, style

pytestmark = pytest.mark.usefixtures("closed_loops")
HOSTILE = "${alert(1)}</script>{{value}}"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    return tmp_path


def test_arrays_become_files_named_by_their_content(cache: Path) -> None:
    x = torch.randn(2, 3)
    sent = payload(View({"label": HOSTILE}, {"x": numbers(x), "same": numbers(x)}))
    file = Path(sent["arrays"]["x"]["file"]["path"])
    assert file.is_relative_to(cache.resolve())
    assert gzip.decompress(file.read_bytes()) == x.numpy().tobytes()
    assert sent["arrays"]["same"]["file"]["path"] == str(file)
    assert sent["arrays"]["x"]["shape"] == (2, 3)
    assert json.loads(sent["facts"]) == {"label": HOSTILE}


def test_a_file_on_its_way_is_not_written_again() -> None:
    view = View({}, {"x": numbers(torch.ones(4))})
    file = Path(payload(view)["arrays"]["x"]["file"]["path"])
    inode = file.stat().st_ino
    payload(view)
    assert file.stat().st_ino == inode


@pytest.mark.parametrize("viewer", VIEWERS)
def test_nothing_from_outside_is_in_the_template_or_the_script(viewer: str) -> None:
    component = panel(viewer, "name")
    component.value = payload(View({"label": HOSTILE}))
    config = component.get_config()
    assert config["html_template"] == TEMPLATE
    assert HOSTILE not in config["js_on_load"] + config["css_template"]


@pytest.mark.parametrize("viewer", VIEWERS)
def test_scripts_set_text_and_never_html(viewer: str) -> None:
    source = script(viewer)
    assert f"const {viewer} = (root, callbacks)" in source
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "http://", "https://"):
        assert word not in source
    assert "${" not in style()
    assert "{{" not in style()


@pytest.mark.parametrize("value", [None, "index", 3, ["index"], {}, {"facts": "{}"}])
def test_an_answer_that_is_none(value: Any) -> None:
    assert answer(value, "index") is None


def test_an_answer() -> None:
    assert answer({"index": 3}, "index") == 3


def test_a_refusal_is_a_sentence() -> None:
    sent = refusal(PrismaError(f"expected more; found {HOSTILE}"))
    assert json.loads(sent["facts"]) == {"refused": f"Expected more; found {HOSTILE}."}
    assert sent["arrays"] == {}
