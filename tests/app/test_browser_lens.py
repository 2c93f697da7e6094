"""The logit lens and decomposed logits as a visitor sees them: the library's numbers, by pointer, by keys, by link."""

import re
from collections.abc import Callable, Iterator

import pytest
import torch
from playwright.sync_api import Browser
from prisma_app.library import Library, Scene

import prisma
from tests.app.conftest import ANIMALS, DIGITS, GLYPHS, HOSTILE
from tests.app.plain import plainly_served
from tests.app.visitor import App, near, visit

FAST = 8  # milliseconds of a redraw, at the median here: test machines are loaded


@pytest.fixture(scope="module")
def url(library: Library) -> Iterator[str]:
    with plainly_served(library) as address:
        yield address


def test_the_lens_shows_the_librarys_numbers(app: App, scene: Callable[..., Scene]) -> None:
    there = scene(model=DIGITS, img="3")
    found = prisma.logit_lens(there.loaded.model, x := there.picture.x[None])
    assert found.tokens is not None
    probability = found.tokens[0].softmax(-1)
    app.open("?v=1&view=lens&img=3&layer=1&token=6&target=4").ready("s.view === 'lens'")
    assert near(app.figure("f.lens.readout"), found.readout[0].softmax(-1), 1e-6)
    assert near(app.figure("[...f.lens.column(4)]"), probability[..., 4].flatten())
    best = probability.argmax(-1)
    assert app.figure("[0, 1, 2].map((s) => [...Array(17).keys()].map((t) => f.lens.first(s, t)[0]))") == best.tolist()
    words = app.tab.locator("#pz-figure .pz-words").inner_text()
    assert words.startswith("After layer 1, row 2, column 2: alone it reads")
    alone, chosen = map(float, re.findall(r"\((0\.\d+)\), and 4 with (0\.\d+)", words)[0])
    assert (alone, chosen) == pytest.approx((float(probability[2, 6].max()), float(probability[2, 6, 4])), abs=6e-4)
    logits = there.loaded.model(x)[0]
    last = app.tab.locator(".pz-answer-line").first.inner_text()
    assert f"the model's own answer: {int(logits.argmax())}, probability {logits.softmax(-1).max():.3f}" in last


def test_pointing_pinning_and_keys(app: App, browser: Browser) -> None:
    app.open("?v=1&view=lens&layer=0").ready("s.view === 'lens'")
    cells, words = app.tab.locator(".pz-lens-cells"), app.tab.locator("#pz-figure .pz-words")
    box = cells.bounding_box()
    assert box is not None
    wide = box["width"] / 17
    app.tab.mouse.move(box["x"] + 2.5 * wide, box["y"] + 18 + 11)
    assert words.inner_text().startswith("After the embedding, row 1, column 2:")
    app.tab.mouse.click(box["x"] + 2.5 * wide, box["y"] + 18 + 22 + 11)
    state = app.ready("s.pin === '1'")
    assert (state["layer"], state["token"]) == (0, 2) and "(pinned)" in words.inner_text()
    app.tab.mouse.move(box["x"] + 9.5 * wide, box["y"] + 18 + 11)
    assert words.inner_text().startswith("After layer 0, row 1, column 2 (pinned):")
    app.tab.locator(".pz-lens-table").focus()
    for key in ("Escape", "ArrowUp", "ArrowRight"):
        app.tab.keyboard.press(key)
    state = app.ready("s.embedding === '1' && s.token === 3 && !s.pin")
    known = {key: value for key, value in state.items() if value is not None}
    with visit(browser, app.url) as other:
        assert other.open(app.tab.url.removeprefix(app.url)).ready("s.embedding === '1'") == known
        words = other.tab.locator("#pz-figure .pz-words")
        assert words.inner_text().startswith("After the embedding, row 1, column 3:")


def test_classes_are_chosen_for_maps_and_curves(app: App) -> None:
    app.open("?v=1&view=lens").ready("s.view === 'lens'")
    app.tab.get_by_label("Class on the maps").select_option("7")
    app.ready("s.target === 7")
    app.tab.get_by_label("Add a class to the curves").select_option("5")
    assert app.ready("s.classes")["classes"].endswith("5")
    assert app.figure("f.chosen.at(-1)") == 5
    app.tab.get_by_role("button", name="Remove 5 from the curves").click()
    assert 5 not in app.figure("f.chosen") if app.ready("!s.classes?.endsWith('5')") else False
    app.tab.locator("#pz-figure summary", has_text="Show as table").click()
    rows = app.tab.locator("#pz-figure .pz-more tbody tr")
    rows.last.wait_for()
    assert rows.count() == 3 and rows.last.locator("td").first.inner_text() == "after layer 1"


def test_hostile_labels_stay_text(app: App) -> None:
    for view in ("lens", "decompose"):
        app.open(f"?v=1&model={GLYPHS}&view={view}").ready(f"s.view === '{view}'")
        assert HOSTILE in app.figure("f.labels") and app.tab.evaluate("window.harmed") is None


def test_pointing_is_quick_with_197_tokens(browser: Browser, vit_url: str) -> None:
    with visit(browser, vit_url) as visitor:
        visitor.open("?v=1&view=lens").ready("s.view === 'lens'")
        assert visitor.figure("f.lens.tokens") == 197 and visitor.figure("f.labels") == ANIMALS
        took = visitor.tab.evaluate(
            """async () => {
              const figure = window.prisma.page.figures.lens, took = [];
              for (let i = 0; i < 60; i += 1) {
                figure.over({ stage: i % 3, token: (i * 31) % 197 });
                took.push(Number(document.documentElement.dataset.prismaDrawMs));
                await new Promise((resolve) => requestAnimationFrame(resolve));
              }
              return took.sort((a, b) => a - b)[30];
            }"""
        )
        assert took < FAST
        visitor.tab.set_viewport_size({"width": 390, "height": 844})
        visitor.tab.wait_for_function("document.documentElement.scrollWidth <= 390")
        assert visitor.tab.locator("#pz-figure").bounding_box()["height"] < 3000  # type: ignore[index]


def test_a_visitor_types_prompts(browser: Browser, clip_url: str, clip_library: Library) -> None:
    with visit(browser, clip_url) as visitor:
        visitor.open("?v=1&view=lens").ready("s.view === 'lens'")
        assert visitor.figure("f.labels") == ["a cat", "two dogs"]  # those of the command line
        visitor.tab.get_by_text("The classes are prompts: type your own").click()
        visitor.tab.get_by_label("Prompts, one in each line").fill("a red square\na <b>blue</b> circle")
        visitor.tab.get_by_role("button", name="Use these prompts").click()
        visitor.ready("s.prompts")
        assert visitor.figure("f.labels") == ["a red square", "a <b>blue</b> circle"]
        subject = clip_library.subject(None, None).prompted("a red square\na <b>blue</b> circle")
        found = prisma.logit_lens(subject.final.model, subject.picture("0").x[None]).readout[0].softmax(-1)
        assert near(visitor.figure("f.lens.readout"), found, 1e-5)


@pytest.mark.parametrize("keys", ["", "&bars=layers", "&order=size&start=sum", "&target=2&against=7"])
def test_the_bars_sum_to_the_logit(app: App, scene: Callable[..., Scene], keys: str) -> None:
    app.open(f"?v=1&view=decompose&img=3{keys}").ready("s.view === 'decompose'")
    there = scene(model=DIGITS, img="3")
    logits = there.loaded.model(there.picture.x[None])[0]
    expected = logits[2] - logits[7] if "against" in keys else logits.max()
    assert near(app.figure("f.shown.reduce((sum, part) => sum + part.value, 0)"), expected, 1e-5)
    said = app.tab.locator("#pz-figure .pz-answer-line").inner_text()
    assert f"sum to {expected:.3f}" in said and said.endswith(f"is {expected:.3f}.")
    app.tab.locator(".pz-bars").focus()
    app.tab.keyboard.press("Home")
    first = app.figure("f.shown[0]")
    assert first["name"].lower() in app.tab.locator("#pz-figure .pz-words").first.inner_text().lower()
    sizes = torch.tensor(app.figure("f.shown.map((part) => Math.abs(part.value))"))
    assert "order" not in keys or torch.equal(sizes, sizes.sort(descending=True).values)
