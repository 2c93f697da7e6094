"""The static twin: the numbers of its views, and the page in a browser, from a disk."""

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser
from prisma_app.changes import with_model
from prisma_app.models import Mouse
from prisma_app.tabs import TABS
from prisma_app.twin import files_of, one_of_each, spread

import prisma
from prisma.repository import Published
from prisma.run_folder import METRICS, read_metrics
from tests.app.conftest import DIGITS, GLYPHS, HOSTILE
from tests.app.visitor import near, visit


@pytest.fixture(scope="module")
def mice(lab: Path) -> list[Published]:
    return [Published(repo, lab, Published(repo, lab).file("config.json").parent.name) for repo in (DIGITS, GLYPHS)]


@pytest.fixture(scope="module")
def files(mice: list[Published]) -> dict[str, bytes]:
    return files_of(mice, "<b>a & b", 2, 2)


def data_of(script: bytes) -> Any:
    """What a script of the page hands over: the last JSON value in it."""
    text = script.decode()
    start = min(i for i in (text.find("{"),) if i >= 0)
    return json.JSONDecoder().raw_decode(text[start:])[0]


def array(view: dict[str, Any], name: str) -> torch.Tensor:
    packed = view["arrays"][name]
    raw = gzip.decompress(base64.b64decode(packed["url"].partition(",")[2]))
    dtype, scale = ("<u2", 65535) if packed["type"] == "uint16" else ("<f4", 1)
    return torch.tensor(np.frombuffer(raw, dtype).astype(np.float64) / scale).view(packed["shape"])


@pytest.mark.parametrize(
    ("count", "n", "expected"),
    [(3, 8, [0, 1, 2]), (11, 1, [10]), (11, 2, [0, 10]), (11, 3, [0, 5, 10]), (8, 8, list(range(8))), (0, 4, [])],
)
def test_the_first_and_the_last_are_among_a_spread(count: int, n: int, expected: list[int]) -> None:
    assert spread(count, n) == expected


def test_images_are_of_as_many_classes_as_possible() -> None:
    assert one_of_each([1, 1, 2, 1, 3], 3) == [0, 2, 4]
    assert one_of_each([1, 1, 2, 1, 3], 4) == [0, 1, 2, 4]
    assert one_of_each([1, 1], 6) == [0, 1]


def test_views_are_those_of_the_app(files: dict[str, bytes], lab: Path) -> None:
    mouse = Mouse(Published(DIGITS, lab))
    session = with_model(mouse)
    views = data_of(files[f"data/0/step-{mouse.steps[-1]:06d}/0.js"])
    assert list(views) == list(TABS)
    model = prisma.load(DIGITS, hub=lab).model
    _, acts = prisma.record(model, session.picture.x[None], "blocks.*.attn.pattern")
    for layer, pattern in enumerate(acts.values()):
        assert near(array(views["attention"], f"layer {layer}").tolist(), pattern[0])
    assert near(array(views["lens"], "logits").tolist(), model(session.picture.x[None])[0], 1e-5)
    effects = array(views["patching"], "heads")
    assert effects.shape == (model.config.n_layers, model.config.n_heads)


def test_the_index_lists_first_and_last_step_and_the_curves(files: dict[str, bytes], mice: list[Published]) -> None:
    index = data_of(files["data/index.js"])
    assert [model["name"] for model in index["models"]] == [DIGITS, GLYPHS]
    digits = index["models"][0]
    assert [entry["step"] for entry in digits["steps"]] == [0, 40]
    assert digits["commit"] == mice[0].commit
    lines = read_metrics(mice[0].file(METRICS))
    loss = digits["charts"][0]["curves"][1]
    measured = [(line["step"], line["test_loss"]) for line in lines if "test_loss" in line]
    assert (loss["name"], list(zip(loss["steps"], loss["values"], strict=True))) == ("test loss", measured)


def test_files_are_the_same_each_time_and_link_to_nothing_else(files: dict[str, bytes], mice: list[Published]) -> None:
    assert files_of(mice[1:], "x", 1, 1) == files_of(mice[1:], "x", 1, 1)
    assert b"&lt;b&gt;a &amp; b</title>" in files["index.html"]
    for name, content in files.items():
        assert b"http://" not in content and b"https://" not in content, name


def test_the_page_works_from_a_disk(files: dict[str, bytes], tmp_path: Path, browser: Browser, lab: Path) -> None:
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    with visit(browser, tmp_path.as_uri()) as page:
        page.open("/index.html")
        assert page.state("attention", "s.where.step === 40")["where"]["model"] == DIGITS
        page.tab.locator("#pz-images button").nth(1).click()
        page.tab.get_by_role("tab", name="Logit lens").click()
        found = page.state("lens", "s.where.image === 1")["logits"]
        loaded = prisma.load(DIGITS, hub=lab)
        assert loaded.transform is not None
        x = loaded.transform.normalise(Published(DIGITS, lab).probe()[0][1:2])
        assert near(found, loaded.model(x)[0], 1e-5)
        page.tab.keyboard.press("ArrowRight")
        assert page.state("patching")["where"]["view"] == "patching"
        page.tab.locator("#pz-steps input").fill("0")
        assert page.state("patching", "s.where.step === 0")["where"]["step"] == 0
        page.tab.get_by_role("tab", name="Training").click()
        assert page.state("training", "s.where.step === 0")["at"]["test loss"] == pytest.approx(
            read_metrics(Published(DIGITS, lab).file(METRICS))[0]["test_loss"]
        )
        page.tab.locator("#pz-model").select_option(GLYPHS)
        page.tab.get_by_role("tab", name="Logit lens").click()
        page.state("lens", f"s.where.model === '{GLYPHS}'")
        assert page.tab.locator(".pz-name", has_text=HOSTILE[:20]).first.is_visible()
        assert page.tab.evaluate("window.harmed") is None
        page.tab.set_viewport_size({"width": 390, "height": 844})
        assert page.tab.evaluate("document.documentElement.scrollWidth") <= 390
        address = page.tab.url
    with visit(browser, tmp_path.as_uri()) as again:
        again.tab.goto(address)
        assert again.state("lens")["where"] == {"model": GLYPHS, "step": 0, "image": 1, "view": "lens"}
