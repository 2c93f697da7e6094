"""The static twin: the numbers of its views, and the page in a browser, from a disk."""

import base64
import json
import re
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from playwright.sync_api import Browser
from prisma_app.library import Library
from prisma_app.state import VIEWS, State
from prisma_app.twin import file_name, files_of, one_of_each, spread
from prisma_app.views import attention as attention_view

import prisma
from prisma.repository import Published
from tests.app.conftest import DIGITS, GLYPHS
from tests.app.unpack import attention, unpack
from tests.app.visitor import ROW, near, visit

FEW = "window.prisma.page.figures.attention.few"


@pytest.fixture(scope="module")
def mice(lab: Path) -> list[Published]:
    return [Published(repo, lab, Published(repo, lab).file("config.json").parent.name) for repo in (DIGITS, GLYPHS)]


@pytest.fixture(scope="module")
def files(mice: list[Published]) -> dict[str, bytes]:
    with patch.object(
        attention_view, "MOST_AT_ONCE", 1
    ):  # as of larger models: layers are read when they are looked at
        return files_of(mice, "<b>a & b", 2, 2)


def packed(script: bytes) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """What a script of the page hands over."""
    name, text = json.loads("[" + script.decode().strip().removeprefix("PRISMA_PACK(").removesuffix(");") + "]")
    assert re.fullmatch(r"[a-z]+/[A-Za-z0-9_.-]+", name)
    return unpack(base64.b64decode(text))


@pytest.mark.parametrize(
    ("count", "n", "expected"),
    [(3, 8, [0, 1, 2]), (11, 1, [10]), (11, 2, [0, 10]), (11, 3, [0, 5, 10]), (8, 8, list(range(8))), (0, 4, [])],
)
def test_the_first_and_the_last_are_among_a_spread(count: int, n: int, expected: list[int]) -> None:
    assert spread(count, n) == expected


def test_no_two_models_have_one_file() -> None:
    names = [
        file_name("model", model=model) for model in ("lab/a.b", "lab/a_b", "lab/a-b", "Lab/a.b", "lab/A.b", "la/b_a.b")
    ]
    assert len({name.casefold() for name in names}) == len(names)
    assert file_name("model", model=DIGITS) == "model/model-lab_2fdigits"


def test_images_are_of_as_many_classes_as_possible() -> None:
    assert one_of_each([1, 1, 2, 1, 3], 3) == [0, 2, 4]
    assert one_of_each([1, 1, 2, 1, 3], 4) == [0, 1, 2, 4]
    assert one_of_each([1, 1], 6) == [0, 1]


def test_views_are_those_of_the_app(files: dict[str, bytes], library: Library) -> None:
    there = library.scene(State.of({"model": DIGITS, "img": "0", "step": 40}))
    logits, acts = prisma.record(there.loaded.model, there.picture.x[None], "blocks.*.attn.pattern")
    here = {"model": DIGITS, "step": 40, "img": "0"}
    for layer, pattern in enumerate(acts.values()):
        _, arrays = packed(files[f"data/{file_name('attention', **here, part=layer)}.js"])
        assert (attention(arrays) - pattern[0]).abs().max() < 2.1e-3 * pattern.max()
    _, arrays = packed(files[f"data/{file_name('answer', **here)}.js"])
    assert near(arrays["probability"].tolist(), logits[0].softmax(-1))


def test_no_file_says_where_on_this_machine_it_was_made(files: dict[str, bytes], lab: Path) -> None:
    for name, content in files.items():
        if name.startswith("data/"):
            assert str(lab.parent) not in json.dumps(packed(content)[0]), name


def test_the_model_lists_only_what_was_made(files: dict[str, bytes]) -> None:
    facts, arrays = packed(files[f"data/{file_name('model', model=DIGITS)}.js"])
    assert facts["steps"] == [0, 40]
    assert [example["img"] for example in facts["examples"]] == ["0", "1"]
    assert arrays["thumbnails"].shape[0] == 2
    made = {name for name in files if name.startswith("data/answer/")}
    assert made == {
        f"data/{file_name('answer', model=model, step=step, img=img)}.js"
        for model in (DIGITS, GLYPHS) for step in (0, 40) for img in ("0", "1")
    }  # fmt: skip


def test_files_are_the_same_each_time_and_link_to_nothing_else(files: dict[str, bytes], mice: list[Published]) -> None:
    assert files_of(mice[1:], "x", 1, 1) == files_of(mice[1:], "x", 1, 1)
    assert b"&lt;b&gt;a &amp; b</title>" in files["index.html"]
    for name, content in files.items():
        assert b"http://" not in content and b"https://" not in content, name


def test_the_page_works_from_a_disk(
    files: dict[str, bytes], tmp_path: Path, browser: Browser, library: Library
) -> None:
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    with visit(browser, tmp_path.as_uri()) as page:
        page.open("/index.html")
        assert page.ready()["step"] == 40
        page.tab.locator(".pz-examples button").nth(1).click()
        page.ready("s.img === '1'")
        page.tab.locator(".pz-timeline").first.fill("0")
        shown = page.ready("s.step === 0")
        there = library.scene(State.of({"model": DIGITS, "img": "1", "step": 0}))
        _, acts = prisma.record(there.loaded.model, there.picture.x[None], "blocks.0.attn.pattern")
        expected = acts["blocks.0.attn.pattern"][0, shown["head"], shown["token"]]
        assert near(page.figure("Array.from(f.values)"), expected, ROW)
        page.tab.wait_for_function(f"{FEW}.layers?.length === 2")
        assert page.figure("f.patterns.map(Boolean)") == [True, False]
        page.over(page.tab.locator(".pz-stage .pz-map"), 1, 2)
        page.tab.wait_for_function(f"{FEW.removesuffix('.few')}.patterns.every(Boolean)")
        page.tab.locator(".pz-stage").press("Escape")
        for view in VIEWS:
            page.tab.locator(f"#pz-tab-{view}").click()
            page.ready(f"s.view === '{view}'")
            assert page.tab.locator(".pz-trouble").first.is_hidden(), view
        page.tab.locator(".pz-model select").first.select_option(GLYPHS)
        page.ready(f"s.model === '{GLYPHS}'")
        assert page.tab.evaluate("window.harmed") is None
        page.tab.set_viewport_size({"width": 390, "height": 844})
        assert page.tab.evaluate("document.documentElement.scrollWidth") <= 390
        address = page.tab.url
    with visit(browser, tmp_path.as_uri()) as again:
        again.tab.goto(address)
        assert again.ready()["model"] == GLYPHS
        assert again.tab.locator(".pz-trouble").first.is_hidden()
        again.tab.goto("about:blank")
        again.open(f"/index.html#model={DIGITS}&view=patching&rev=00&corrupt=blur:&target=9&metric=logit&ablate=0.1")
        state, there = again.ready(), library.scene(State.of({"model": DIGITS}))
        assert (state["corrupt"], state["metric"], state["rev"]) == (there.corrupt.img, "logit_diff", there.subject.rev)
        said = again.tab.locator(".pz-trouble").first.inner_text()
        assert "not computed when the page was made: rev=00, corrupt=blur:, metric=logit, target=9, ablate=0.1." in said
        assert "ablate" not in state and state["target"] != 9


def test_a_link_that_asks_for_what_only_a_server_computes(
    browser: Browser, files: dict[str, bytes], tmp_path: Path
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    asked = {"patching": "estimate=relp&paths=signs&circuit=1", "decompose": "span=2", "units": "outlying=2"}
    with visit(browser, tmp_path.as_uri()) as page:
        for view, keys in asked.items():
            page.tab.goto("about:blank")
            state = page.open(f"/index.html#model={DIGITS}&view={view}&{keys}").ready()
            said = page.tab.locator(".pz-trouble").first.inner_text()
            assert said.endswith(f"when the page was made: {keys.replace('&', ', ')}.")
            assert not [key for key in re.findall(r"(\w+)=", keys) if key in state]
        nobody = (  # of a model that cannot be steered: nobody asked for the difference of means, which is the default
            "(async () => { const s = window.prisma.page.source; s.ask = async () => ({ facts: { state: {} } });"
            f" const asked = {{ view: 'steering', model: '{DIGITS}', direction: 'means', reach: 8 }};"
            " return (await s.nearest(asked, { steps: [40] })).mistakes; })()"
        )
        mistakes = page.tab.evaluate(nobody)
        assert len(mistakes) == 1 and mistakes[0].endswith(
            "when the page was made: model=lab/digits, step=40, reach=8."
        )
