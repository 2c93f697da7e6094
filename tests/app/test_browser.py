"""The app in a real browser: what it shows equals what the library computes, and nothing leaves this machine."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Locator, expect
from prisma_app.models import Mouse
from prisma_app.tabs.patching import default_question

import prisma
from prisma import LogitDiff
from prisma.analysis.lens.logit_lens import logit_lens
from prisma.repository import Published
from tests.app.conftest import DIGITS, GLYPHS, HOSTILE
from tests.app.visitor import WAIT, App, near, served, visit


@pytest.fixture(scope="module")
def url(lab: Path) -> Iterator[str]:
    with served(lab, DIGITS) as address:
        yield address


@pytest.fixture
def app(browser: Browser, url: str) -> Iterator[App]:
    with visit(browser, url) as visitor:
        yield visitor


@pytest.fixture
def mouse(lab: Path) -> Mouse:
    return Mouse(Published(DIGITS, lab))


def pattern(mouse: Mouse, index: int, layer: int, head: int) -> torch.Tensor:
    x = mouse.example(0).x[None]
    _, acts = prisma.record(mouse.at(index).model, x, "blocks.*.attn.pattern")
    return acts[f"blocks.{layer}.attn.pattern"][0, head]


def test_the_first_view_is_attention_from_the_class_token(app: App, mouse: Mouse) -> None:
    shown = app.open().state("attention")
    expected = pattern(mouse, -1 + len(mouse.steps), 0, 0)
    assert (shown["layer"], shown["head"], shown["token"], shown["pinned"]) == (0, 0, 0, False)
    assert near(shown["to"], expected[0])
    assert near(shown["from"], expected[:, 0])
    ticks = app.panel("attention").locator(".pz-ticks").first.locator("span").all_inner_texts()
    end = ("≥ " if expected[0, 0] > expected[0, 1:].max() else "") + f"{expected[0, 1:].max():.3f}"
    assert ticks == ["0", f"{expected[0, 1:].max() / 2:.3f}", end]


def test_the_bars_say_when_a_prefix_token_is_beyond_them(app: App) -> None:
    app.open().state("attention")
    panel, beyond = app.panel("attention"), set()
    stage, ends = panel.locator(".pz-stage"), panel.locator(".pz-ticks")
    for key in ("0", "]", ".", "ArrowDown", ".", "ArrowDown", "ArrowRight", ".", "[", "ArrowDown", "."):
        stage.press(key)
        shown = app.state("attention")
        for side, end in (("to", ends.first), ("from", ends.last)):
            first, *patches = shown[side]
            expect(end.locator("span").last).to_have_text(
                ("≥ " if first > max(patches) else "") + f"{max(patches):.3f}"
            )
            beyond.add(first > max(patches))
    assert beyond == {False, True}


COLOURS = """(panel) => {
  const pixels = (canvas, x, y, w) => {
    const { data } = canvas.getContext("2d").getImageData(x, y, w, 1);
    return Array.from({ length: w }, (_, i) => data.slice(4 * i, 4 * i + 3).join());
  };
  const cells = [...panel.querySelectorAll(".pz-card .pz-map")].map((map) => {
    const side = map.width / 4;
    return [...Array(16).keys()].map((p) =>
      pixels(map, ((p % 4) + 0.1) * side, map.height - map.width + (Math.floor(p / 4) + 0.1) * side, 1)[0]);
  });
  return { bar: pixels(panel.querySelector(".pz-strip"), 0, 0, 256), cells };
}"""


@pytest.mark.parametrize("view", ["lens", "patching"])
def test_a_cell_has_the_colour_that_the_bar_gives_its_number(app: App, view: str) -> None:
    shown = app.open(f"?view={view}").state(view)
    found = app.panel(view).evaluate(COLOURS)
    assert len(found["cells"]) == (len(shown["map"]) if view == "lens" else len(shown["tokens"])) > 1
    assert {colour for map_ in found["cells"] for colour in map_} <= set(found["bar"])
    if view == "lens":
        high = max(max(values) for values in shown["map"])
        expected = [[found["bar"][round(value / high * 255)] for value in values[1:]] for values in shown["map"]]
        assert found["cells"] == expected


def test_hover_previews_click_pins_escape_unpins(app: App, mouse: Mouse) -> None:
    app.open().state("attention")
    expected = pattern(mouse, len(mouse.steps) - 1, 0, 0)
    map_ = app.panel("attention").locator(".pz-map").first
    app.over(map_, column=2, row=1)
    token = 1 + 1 * 4 + 2
    hovered = app.state("attention", f"s.token === {token}")
    assert near(hovered["to"], expected[token])
    assert near(hovered["from"], expected[:, token])
    app.tab.mouse.down()
    app.tab.mouse.up()
    app.state("attention", "s.pinned")
    app.over(map_, column=0, row=3)
    assert app.state("attention")["token"] == token
    expect(app.panel("attention").get_by_role("status")).to_contain_text(
        f"To row 4, column 1 {expected[token, 13]:.3f}"
    )
    app.panel("attention").locator(".pz-stage").press("Escape")
    assert not app.state("attention", "!s.pinned")["pinned"]


def test_the_keyboard_reaches_every_token_layer_and_head(app: App, mouse: Mouse) -> None:
    app.open().state("attention")
    stage = app.panel("attention").locator(".pz-stage")
    for key in ("ArrowDown", "ArrowRight", "ArrowDown", "]", ".", "."):
        stage.press(key)
    shown = app.state("attention", "s.head === 2")
    assert (shown["layer"], shown["token"]) == (1, 6)
    assert near(shown["to"], pattern(mouse, len(mouse.steps) - 1, 1, 2)[6])
    stage.press("0")
    stage.press(",")
    shown = app.state("attention", "s.head === 1")
    assert shown["token"] == 0
    expect(app.panel("attention").get_by_role("combobox", name="Layer")).to_have_value("1")


def test_the_slider_changes_the_step_in_every_tab(app: App, mouse: Mouse) -> None:
    app.open().state("attention")
    slider = app.tab.get_by_role("slider", name="Training step")
    slider.press("Home")
    for _ in range(3):
        slider.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "step 4"
    shown = app.state("attention", "s.where.step === 4")
    assert near(shown["to"], pattern(mouse, 3, 0, 0)[0])
    for title, name in (("Logit lens", "lens"), ("Patching", "patching")):
        app.tab.get_by_role("tab", name=title).click()
        assert app.state(name, "s.where.step === 4")["where"]["image"] == 0
    expect(app.tab).to_have_url(f"{app.url}?model=lab%2Fdigits&step=4&image=0&view=patching")


def test_after_a_checkpoint_that_cannot_be_read_the_slider_shows_what_the_page_shows(app: App, mouse: Mouse) -> None:
    app.open("?step=16").state("attention", "s.where.step === 16")
    weights = mouse.published.file("model.safetensors", "step-000032")
    hidden = weights.rename(weights.with_name("hidden"))
    slider = app.tab.get_by_role("slider", name="Training step")
    slider.press("ArrowRight")
    expect(app.tab.get_by_text("has no file 'model.safetensors'")).to_be_visible()
    expect(slider).to_have_attribute("aria-valuetext", "step 16")
    assert app.state("attention")["where"]["step"] == 16
    hidden.rename(weights)
    slider.press("ArrowRight")
    assert app.state("attention", "s.where.step === 32")


def test_the_lens_ends_in_the_logits(app: App, mouse: Mouse) -> None:
    shown = app.open("?view=lens").state("lens")
    x, model = mouse.example(0).x[None], mouse.final.model
    expected, logits = logit_lens(model, x), model(x)[0]
    assert near(shown["logits"], logits, 0)
    assert near(shown["readout"], expected.readout[0].softmax(-1))
    assert near(shown["readout"][-1], logits.softmax(-1))
    assert shown["answer"] == int(logits.argmax())
    other = int(logits.argmin())
    app.panel("lens").get_by_label("Class on the maps").select_option(str(other))
    app.over(app.panel("lens").locator(".pz-map").nth(1), column=3, row=3)
    shown = app.state("lens", f"s.answer === {other} && s.token === 16")
    probabilities = expected.tokens[0].softmax(-1)
    assert near(shown["map"], probabilities[..., other])
    assert [top[0] for top in shown["tops"]] == probabilities[:, 16].argmax(-1).tolist()
    bar = app.panel("lens").locator(".pz-card").nth(1).locator(".pz-top").nth(1).locator(".pz-value").first
    expect(bar).to_have_text(f"{probabilities[1, 16].max():.3f}")


def test_patching_is_the_sweep(app: App, mouse: Mouse) -> None:
    shown = app.open("?view=patching").state("patching")
    clean = mouse.example(0)
    corrupt = mouse.other_example(clean)
    asked = default_question(mouse, clean, corrupt)
    pair = (mouse.final.model, clean.x[None], corrupt.x[None])
    metric = LogitDiff(asked.target, asked.against)
    assert near(shown["heads"], prisma.sweep(*pair, "attn.z", metric, into="corrupt"), 0)
    assert near(shown["tokens"], prisma.sweep(*pair, "resid_pre", metric, into="corrupt", axis="token"), 0)
    assert near(shown["clean"], metric(pair[0](pair[1])), 0)
    _choose(app, "Direction", "noising: corrupt into clean")
    _choose(app, "Tokens of", "attn_out")
    into_clean = prisma.sweep(*pair, "attn_out", metric, into="clean", axis="token")
    app.tab.wait_for_function(
        f"Math.abs(window.__prisma.patching.tokens[0][3] - {into_clean[0, 3]}) < 1e-6", timeout=WAIT
    )
    assert near(app.state("patching")["tokens"], into_clean, 0)
    app.over(app.panel("patching").locator(".pz-card .pz-map").first, column=0, row=2)
    expect(app.panel("patching").get_by_role("status")).to_contain_text("Layer 0, row 3, column 1: logit")
    assert app.state("patching", "s.hovered")["hovered"]["effect"] == pytest.approx(into_clean[0, 9].item())


def _choose(app: App, name: str, value: str) -> None:
    app.tab.get_by_label(name, exact=True).click()
    app.tab.get_by_role("option", name=value).click()


def test_choosing_another_mouse_and_another_image(app: App, lab: Path) -> None:
    app.open().state("attention")
    _choose(app, "Model", GLYPHS)
    shown = app.state("attention", f"s.where.model === '{GLYPHS}'")
    glyphs = Mouse(Published(GLYPHS, lab))
    assert shown["where"]["step"] == glyphs.steps[-1]
    app.panel("images").get_by_role("button", name="Test image 2,").click()
    shown = app.state("attention", "s.where.image === 2")
    _, acts = prisma.record(glyphs.final.model, glyphs.example(2).x[None], "blocks.0.attn.pattern")
    assert near(shown["to"], acts["blocks.0.attn.pattern"][0, 0, 0])
    expect(app.panel("images").get_by_role("status")).to_have_text(glyphs.example(2).caption)


def test_a_drawing_and_an_upload_are_looked_at(app: App, mouse: Mouse, tmp_path: Path) -> None:
    first = app.open().state("attention")
    box = app.panel("images").locator(".pz-pad").bounding_box()
    assert box is not None
    app.tab.mouse.move(box["x"] + 45, box["y"] + 8)
    app.tab.mouse.down()
    app.tab.mouse.move(box["x"] + 45, box["y"] + 85, steps=4)
    app.tab.mouse.up()
    expect(app.panel("images").get_by_role("status")).to_have_text("Your drawing", timeout=WAIT)
    drawn = app.state("attention", f"s.to[5] !== {first['to'][5]}")
    Image.effect_noise((40, 30), 90).save(tmp_path / "noise.png")
    _upload(app, tmp_path / "noise.png")
    expect(app.panel("images").get_by_role("status")).to_have_text("Your image", timeout=WAIT)
    shown = app.state("attention", f"s.to[5] !== {drawn['to'][5]}")
    x = mouse.upload(tmp_path / "noise.png").x[None]
    _, acts = prisma.record(mouse.final.model, x, "blocks.0.attn.pattern")
    assert near(shown["to"], acts["blocks.0.attn.pattern"][0, 0, 0])
    pad = app.panel("images").locator(".pz-pad")
    assert _ink(pad) == 0
    for kind, button in (("pointerup", 0), ("pointerdown", 2), ("pointermove", -1), ("pointerup", 2)):
        pad.dispatch_event(kind, {"button": button, "clientX": box["x"] + 45, "clientY": box["y"] + 45})
    app.tab.wait_for_timeout(500)
    assert _ink(pad) == 0
    expect(app.panel("images").get_by_role("status")).to_have_text("Your image")


def _ink(pad: Locator) -> int:
    """The sum over a drawing pad's red, which is 0 where nothing was drawn."""
    script = "(pad) => { const { data } = pad.getContext('2d').getImageData(0, 0, pad.width, pad.height);"
    ink: int = pad.evaluate(script + " return data.reduce((sum, value, i) => sum + (i % 4 ? 0 : value), 0); }")
    return ink


def test_the_class_on_the_maps_follows_a_new_upload_and_stays_over_the_steps(app: App, tmp_path: Path) -> None:
    app.open("?view=lens").state("lens")
    for shade in (0, 255):
        before = app.state("lens")
        Image.new("L", (40, 30), shade).save(tmp_path / f"{shade}.png")
        _upload(app, tmp_path / f"{shade}.png")
        logits = app.state("lens", f"s.logits[0] !== {before['logits'][0]}")["logits"]
        assert app.state("lens")["answer"] == logits.index(max(logits))
        other = logits.index(min(logits))
        app.panel("lens").get_by_label("Class on the maps").select_option(str(other))
        app.state("lens", f"s.answer === {other}")
    step = app.state("lens")["where"]["step"]
    app.tab.get_by_role("slider", name="Training step").press("ArrowLeft")
    assert app.state("lens", f"s.where.step !== {step}")["answer"] == other


def _upload(app: App, path: Path) -> None:
    app.tab.locator("#pz-upload").locator("xpath=..").locator("input[type=file]").set_input_files(path)


def test_a_bad_upload_and_a_bad_link_are_told_in_a_sentence(app: App, tmp_path: Path) -> None:
    app.open("?step=3&view=nothing").state("attention")
    expect(app.tab.get_by_text("publishes the steps 0, 1, 2")).to_be_visible(timeout=WAIT)
    (tmp_path / "bad.png").write_text("no picture")
    _upload(app, tmp_path / "bad.png")
    expect(app.tab.get_by_text("expected an image")).to_be_visible(timeout=WAIT)


@pytest.mark.parametrize("view", ["attention", "lens", "patching"])
def test_names_from_outside_are_text_and_nothing_else(app: App, view: str) -> None:
    app.open(f"?model={GLYPHS}&view={view}").state(view)
    expect(app.tab.get_by_text("labelled <img src=x").first).to_be_visible(timeout=WAIT)
    assert app.tab.evaluate("window.harmed ?? null") is None


def test_a_link_is_text_and_nothing_else(app: App) -> None:
    app.open("?model=" + quote(HOSTILE)).state("attention")
    expect(app.tab.get_by_text("<img src=x onerror='window.harmed=1'>${").first).to_be_visible(timeout=WAIT)
    assert app.tab.evaluate("window.harmed ?? null") is None


@pytest.mark.parametrize("view", ["attention", "lens", "patching"])
def test_narrow_and_dark(app: App, view: str) -> None:
    app.tab.set_viewport_size({"width": 390, "height": 844})
    app.open(f"?view={view}&__theme=dark").state(view)
    assert app.tab.evaluate("document.documentElement.scrollWidth") == 390
    wide = app.tab.evaluate(
        "[...document.querySelectorAll('.pz-root *')].filter((e) => e.getBoundingClientRect().right > 391).length"
    )
    assert wide == 0


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_in_our_elements(app: App, theme: str) -> None:
    app.open(f"?__theme={theme}").state("attention")
    for title, name in (("Attention", "attention"), ("Logit lens", "lens"), ("Patching", "patching")):
        app.tab.get_by_role("tab", name=title).click()
        app.state(name)
        found = Axe().run(app.tab, context={"include": [[".pz-root"], [".pz-header"]]}).response["violations"]
        assert [(v["id"], n["html"]) for v in found for n in v["nodes"]] == []
