"""The page around the figures, in a real browser: links, the head, a comparison, the tour, keys, and who can use it."""

import io
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, expect
from prisma_app.library import Scene
from prisma_app.state import VIEWS

from tests.app.conftest import DIGITS, GLYPHS, HOSTILE
from tests.app.visitor import App, served, visit

SHOW = """(query) => {
  history.replaceState(null, "", `?${query}`);
  window.dispatchEvent(new PopStateEvent("popstate"));
}"""
SAID = """() => { const { page } = window.prisma, figure = page.figures[page.state.view];
  return { sentence: page.trouble.textContent, stale: page.panel.classList.contains("pz-stale"),
    missing: figure.element.hidden || !(figure.state || figure.steps) }; }"""
DARKNESS = "getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).slice(0, 3).every((c) => c < 128)"
REFUSED = "Failed to load resource: the server responded with a status of 400"


def test_a_page_opens_on_the_default_and_writes_its_address(app: App, scene: Callable[..., Scene]) -> None:
    state = app.open().ready()
    assert (state["model"], state["view"], state["img"], state["step"]) == (DIGITS, "attention", "0", 40)
    assert state["rev"] == scene(model=DIGITS).subject.rev and f"rev={state['rev']}" in app.tab.url
    assert int(app.tab.evaluate("document.documentElement.dataset.prismaFigureMs")) > 0
    assert "26,506 parameters" in app.tab.locator(".pz-model").first.inner_text()
    assert "Test image 0, labelled 0" in app.tab.locator(".pz-shown").first.inner_text()


def test_a_link_opens_what_it_says(app: App) -> None:
    wanted = {"model": GLYPHS, "view": "attention", "img": "4", "step": 8, "head": 3, "token": 5, "way": "from"}
    query = "&".join(f"{key}={value}" for key, value in wanted.items())
    state = app.open(f"?v=1&{query}").ready()
    assert {key: state[key] for key in wanted} == wanted
    address = app.tab.url
    again = app.open(address.removeprefix(app.url)).ready()
    assert again == state and app.tab.url == address


@pytest.mark.parametrize(
    ("query", "sentences"),
    [
        ("?__proto__=1&__defineGetter__=1&constructor=1&step=abc&zz=1", ["The address has step=abc"]),
        ("?model=lab/none&view=lens", ["There is no model 'lab/none' here"]),
        ("?layer=7&step=17&img=99&target=44", ["layer 7", "step 17", "image 99", "target 44"]),
        ("?rev=0000000000000000000000000000000000000000&view=lens", ["revision"]),
        ("?img=sha256:00", ["Upload the same file again"]),
        (
            "?" + "&".join(f"{key}={quote(HOSTILE)}" for key in ("model", "img", "site", "prompts", "rev")),
            ["There is no model"],
        ),
    ],
)
def test_a_link_to_what_does_not_exist_shows_a_figure_and_says_why(app: App, query: str, sentences: list[str]) -> None:
    app.allowed = (REFUSED,)
    app.open(query).ready()
    said = app.tab.locator(".pz-side").first.locator(".pz-trouble").inner_text()
    assert all(sentence in said for sentence in sentences), said
    assert app.tab.evaluate("window.harmed") is None
    assert app.tab.locator(".pz-view:not([hidden])").count() == 1


def test_every_key_of_a_link_may_be_wrong(plain: App) -> None:
    """Each time the figure is drawn without it, and the sentence says so; what is right in the link stays."""
    plain.allowed = (REFUSED,)
    wrong = {
        "patching": {
            "ablate": ("zzz", "9.9", "0.1,"), "corrupt": ("blur:999", "zzz", "99", "3", "sha256:00", "ink:3:x"),
            "cell": ("zzz",), "prompts": ("a cat",), "against": ("2",), "site": ("zzz",), "metric": ("zzz",),
            "into": ("zzz",), "rev": ("0" * 40, "zzz"), "img": ("ink:3:x", "-1"), "token": ("99",),
        },
        "attention": {"sort": ("zzz", "-zzz"), "top": ("0",), "map": ("zzz",), "step": ("3", "1e9")},
        "lens": {"classes": ("3,77", "x"), "target": ("99",)},
        "decompose": {"against": ("4", "99"), "bars": ("zzz",)},
        "training": {"sort": ("zzz",)},
        "steering": {
            "steer": ("zzz", "blocks.9.resid_post"), "where": ("registers",), "reach": ("3",), "dose": ("zzz", "99"),
            "direction": ("x",), "against": ("4",),
        },
        "units": {"units": ("zzz", HOSTILE, "resid_pre,x"), "number": ("128", "1e9", "NaN", "-1", "1000000000")},
    }  # fmt: skip
    kept = {"patching": "layer=1&target=2", "decompose": "target=4", "steering": "target=4"}
    said: Any = None
    for view, keys in wrong.items():
        plain.open(f"?img=3&view={view}").ready()
        for key, values in keys.items():
            for value in values:
                query = "&".join([f"v=1&img=3&view={view}", kept.get(view, "layer=1"), f"{key}={quote(value)}"])
                plain.tab.evaluate(SHOW, query)
                state, said = plain.ready(), plain.tab.evaluate(SAID)
                assert said["sentence"] and not said["stale"] and not said["missing"], (view, key, value, said)
                assert state.get(key) != value and state["view"] == view, (key, value)
                assert key in ("img", "target", "token", "rev", "step") or (state["img"], state["step"]) == ("3", 40), (
                    key
                )
                assert key != "ablate" or (state["layer"], state["target"]) == (1, 2)
    query = "v=1&img=3&view=patching&ablate=zzz&corrupt=blur:99&token=5"
    plain.tab.evaluate(SHOW, query)
    state, said = plain.ready(), plain.tab.evaluate(SAID)
    assert (state["img"], state["token"]) == ("3", 5) and not said["stale"]
    assert "patches from 0 to 15; found 99" in said["sentence"] and "found 'zzz'" in said["sentence"]


def test_the_other_side_of_a_link_may_be_wrong(plain: App) -> None:
    plain.allowed = (REFUSED,)
    second = plain.tab.locator(".pz-side").nth(1)
    for query, sentence in (
        ("model2=lab/none", "There is no model"),
        ("img2=77", "The address asks for image 77"),
        ("step2=3", "The address asks for step 3"),
        ("img2=sha256:00", "Upload the same file again"),
    ):
        plain.open(f"?view=decompose&{query}").ready()
        expect(second.locator(".pz-trouble")).to_contain_text(sentence)
        assert plain.tab.evaluate("window.prisma.page.compare.figures.decompose.shown.length") > 5, query


def test_the_other_side_says_nothing_of_what_it_does_not_show(plain: App) -> None:
    wrong = plain.tab.locator(".pz-side").nth(1).locator(".pz-trouble").first
    for view, sentence in (("attention", ""), ("decompose", "asks for target 9"), ("lens", ""), ("training", "")):
        plain.open(f"?view={view}&model={DIGITS}&target=9&model2={GLYPHS}").ready()
        assert sentence in wrong.inner_text() and bool(sentence) == wrong.is_visible(), view


def test_there_is_one_slider_of_training_steps(plain: App) -> None:
    for view, name in (("attention", "Training step"), ("training", "Checkpoint"), ("lens", "Training step")):
        plain.open(f"?view={view}&model={DIGITS}").ready()
        shown = plain.tab.locator(".pz-timeline:visible")
        expect(shown).to_have_count(1)
        assert shown.get_attribute("aria-label") == name


def test_the_second_side_is_asked_of_the_classes_of_the_first(plain: App) -> None:
    both = """() => [window.prisma.page, window.prisma.page.compare].map((side) => {
      const f = side.figures[window.prisma.state.view];
      return [f.facts.state.target, f.facts.state.against, f.facts.value ?? f.facts.runs]; })"""
    for view in ("patching", "decompose"):
        state = plain.open(f"?view={view}&img=3&img2=5").ready()
        numbers = plain.tab.evaluate(both)
        assert [numbers[0][0], numbers[1][0]] == [state["target"]] * 2, view
        again = plain.open(plain.tab.url.removeprefix(plain.url)).ready()
        assert again == state and plain.tab.evaluate(both) == numbers


def test_back_leads_to_the_figure_before(app: App) -> None:
    app.open().ready()
    app.tab.locator("#pz-tab-lens").click()
    app.ready("s.view === 'lens'")
    app.tab.locator(".pz-example").nth(3).click()
    app.ready("s.img === '3'")
    app.tab.go_back()
    app.ready("s.img === '0' && s.view === 'lens'")
    app.tab.go_back()
    app.ready("s.view === 'attention'")


def test_labels_of_strangers_stay_text(app: App) -> None:
    app.open(f"?model={GLYPHS}").ready()
    for view in VIEWS:
        assert app.show(view).tab.evaluate("window.harmed") is None, view
    assert HOSTILE in app.tab.locator(".pz-answers").first.inner_text()


def test_a_visitors_own_pictures(app: App) -> None:
    app.open().ready()
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((40, 30)).save(buffer, "PNG")
    file = {"name": "my<b>.png", "mimeType": "image/png", "buffer": buffer.getvalue()}
    app.tab.locator("input[type=file]").first.set_input_files(file)  # type: ignore[arg-type]
    state = app.ready("s.img.startsWith('sha256:')")
    expect(app.tab.locator(".pz-caption").first).to_have_text("Your image")
    with_link = app.tab.url
    assert state["img"] in with_link
    app.tab.get_by_role("button", name="Draw").first.click()
    pad = app.tab.locator(".pz-pad").first
    pad.press("Shift+ArrowRight")
    for _ in range(4):
        pad.press("Shift+ArrowDown")
    app.tab.get_by_role("button", name="Use the drawing").first.click()
    drawn = app.ready("s.img.startsWith('ink:28:')")
    expect(app.tab.locator(".pz-caption").first).to_have_text("Your drawing")
    answers = app.tab.locator(".pz-answers").first.inner_text()
    app.open(app.tab.url.removeprefix(app.url)).ready()
    assert app.tab.locator(".pz-answers").first.inner_text() == answers and app.ready()["img"] == drawn["img"]
    app.allowed = (REFUSED,)
    app.tab.locator("input[type=file]").first.set_input_files(
        {"name": "a.png", "mimeType": "image/png", "buffer": b"no picture"}
    )
    expect(app.tab.locator(".pz-own [role=status]").nth(1)).to_contain_text("Expected an image file")


def test_two_sides(app: App) -> None:
    app.open(f"?model={DIGITS}&img=3&layer=1&head=2&token=4").ready()
    app.tab.get_by_role("button", name="Compare").click()
    app.ready("s.img2 === '3'")
    second = app.tab.locator(".pz-side").nth(1)
    second.locator(".pz-timeline").fill("0")
    app.ready("s.step2 === 0 && s.step === 40")
    numbers = app.tab.evaluate(
        "() => [window.prisma.page.figures.attention, window.prisma.page.compare.figures.attention]"
        ".map((f) => Array.from(f.values))"
    )
    assert numbers[0] != numbers[1]
    second.locator(".pz-model select").select_option(GLYPHS)
    state = app.ready(f"s.model2 === '{GLYPHS}'")
    assert state["model"] == DIGITS
    again = app.open(app.tab.url.removeprefix(app.url)).ready()
    assert again == state
    app.tab.get_by_role("button", name="Compare").click()
    assert "model2" not in app.ready("s.model2 === undefined")
    expect(second).to_be_hidden()


def test_everything_can_be_reached_by_keys(app: App) -> None:
    app.open().ready()
    app.tab.keyboard.press("Tab")
    expect(app.tab.locator(".pz-skip")).to_be_focused()
    app.tab.keyboard.press("Enter")
    expect(app.tab.locator("#pz-figure")).to_be_focused()
    app.tab.locator("#pz-tab-attention").focus()
    app.tab.keyboard.press("ArrowRight")
    app.ready("s.view === 'lens'")
    app.tab.locator(".pz-example").first.focus()
    app.tab.keyboard.press("ArrowRight")
    app.ready("s.img === '1'")
    stops = app.tab.evaluate(
        "() => [...document.querySelectorAll('.pz-examples button')].filter((b) => b.tabIndex === 0).length"
    )
    assert stops == 1


def test_the_link_is_copied_and_the_card_is_text(app: App) -> None:
    app.open().ready()
    app.tab.get_by_role("button", name="Copy link").click()
    expect(app.tab.locator(".pz-top-bar [role=status]")).not_to_have_text("")
    app.tab.get_by_role("button", name="About this model").click()
    expect(app.tab.locator(".pz-about")).to_contain_text("Intended use and limits")
    app.tab.keyboard.press("Escape")
    expect(app.tab.locator(".pz-about")).to_be_hidden()


@pytest.mark.parametrize(("scheme", "rules"), [("light", {}), ("dark", {"runOnly": ["color-contrast"]})])
def test_axe_finds_nothing_serious_on_any_view(app: App, scheme: Any, rules: dict[str, list[str]]) -> None:
    """In the dark the elements are the same, and the colours are others."""
    app.tab.emulate_media(color_scheme=scheme)
    app.open().ready()
    for view in VIEWS:
        found = Axe().run(app.show(view).tab, context="#prisma", options=rules).response["violations"]
        serious = [
            (v["id"], [node["target"] for node in v["nodes"]][:3])
            for v in found
            if v["impact"] in ("serious", "critical")
        ]
        assert serious == [], view
    button = app.tab.get_by_role("button", name="Theme")
    for name, is_dark in (("auto", scheme == "dark"), ("light", False), ("dark", True)):
        expect(button).to_have_text(f"Theme: {name}")
        app.tab.wait_for_function(f"{DARKNESS} === {str(is_dark).lower()}")
        button.click()


@pytest.mark.parametrize("model", [DIGITS, GLYPHS])
def test_no_view_is_wider_than_a_phone_or_taller_than_a_few_screens(app: App, model: str) -> None:
    app.tab.set_viewport_size({"width": 390, "height": 844})
    app.open(f"?model={model}").ready()
    for view in VIEWS:
        assert app.show(view).tab.evaluate("document.documentElement.scrollWidth") <= 390, view
        assert app.tab.evaluate("document.documentElement.scrollHeight") < 4200, view
        app.tab.evaluate("document.querySelectorAll('#prisma details').forEach((one) => { one.open = true; })")
        order = {"runOnly": ["heading-order", "scrollable-region-focusable", "landmark-unique"]}
        found = Axe().run(app.tab, context="#prisma", options=order).response["violations"]
        assert [(v["id"], v["nodes"][0]["target"]) for v in found] == [], view


def test_the_tables_of_panels_can_be_scrolled_by_keys(plain: App) -> None:
    plain.tab.set_viewport_size({"width": 390, "height": 844})
    panels = {
        "steering": "", "patching": "&estimate=atp&paths=strongest&circuit=1", "decompose": "&span=2", "latents": "",
    }  # fmt: skip
    for view, keys in panels.items():
        plain.open(f"?v=1&view={view}{keys}").ready()
        plain.tab.evaluate("document.querySelectorAll('#prisma details').forEach((one) => { one.open = true; })")
        rules = {"runOnly": ["scrollable-region-focusable", "landmark-unique", "svg-img-alt", "select-name", "label"]}
        found = Axe().run(plain.tab, context="#prisma", options=rules).response["violations"]
        assert [(v["id"], v["nodes"][0]["target"]) for v in found] == [], view


def test_the_tour_on_a_phone(browser: Browser) -> None:
    with served(None, "mice/induction") as address, visit(browser, address) as app:
        app.tab.set_viewport_size({"width": 390, "height": 844})
        app.open().ready()
        app.tab.get_by_role("button", name="Findings").click()
        app.tab.get_by_role("button", name="Take the tour").click()
        shown = []
        for _ in range(3):
            state = app.ready()
            shown.append((state["model"], state["view"]))
            assert app.tab.evaluate("document.documentElement.scrollWidth") <= 390
            box = app.tab.locator(".pz-note").bounding_box()
            assert box is not None and box["y"] >= 0 and box["y"] + box["height"] <= 844 and box["width"] <= 390
            app.tab.locator(".pz-note button").first.click()
        assert shown == [("mice/sprites", "attention"), ("mice/sprites", "lens"), ("mice/induction", "patching")]
        expect(app.tab.locator(".pz-note")).to_be_hidden()
