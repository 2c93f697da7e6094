"""Patching in a browser: every control is in the link, patches are painted, exact cells stream and can be stopped."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import gradio as gr
import pytest
import timm
import torch
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, expect
from playwright.sync_api import Page as Tab
from prisma_app.library import Scene
from prisma_app.main import serve
from prisma_app.views.patching import circuit_values, compared_values, maps, paths_values, runs, values
from timm.models import save_for_hf

from prisma.pretrained.parity import randomise
from tests.app.visitor import visit

WAIT = 60_000
READY = "window.prisma && window.prisma.ready"
DONE = f"{READY} && window.prisma.page.figures.patching.root.dataset.runs === 'done'"
SHOWN = """() => {
  const { known, facts, root } = window.prisma.page.figures.patching;
  const texts = [".pz-words", ".pz-ticks", ".pz-runs", ".pz-classes", ".pz-quiet", "figcaption"];
  const those = (name) => [...root.querySelectorAll(`${name}:not(.pz-painting *)`)];
  const said = texts.flatMap((name) => those(name).map((element) => element.textContent));
  const chosen = [...root.querySelectorAll("select")].map((select) => select.value);
  const [heads, tokens, exact] = [known.head.values, known.token.values, known.token.exact].map((some) => [...some]);
  return { heads, tokens, exact, facts, said, chosen };
}"""


EXPORTED = """() => {
  const { numbers, svg, code } = window.prisma.page.figures.patching.exported();
  return { share: [...numbers.heads_recovered.values], axes: numbers.heads.axes, svg: svg(), code };
}"""


@pytest.fixture(scope="module")
def mice(lab: Path) -> Iterator[gr.Blocks]:
    blocks = serve(lab, "lab/digits", block=False)
    yield blocks
    blocks.close(verbose=False)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[gr.Blocks]:
    """A ViT as large as vit_tiny, with random weights."""
    folder = tmp_path_factory.mktemp("timm") / "tiny"
    module = timm.create_model("vit_tiny_patch16_224")
    randomise(module)
    save_for_hf(module, str(folder), safe_serialization=True)
    blocks = serve(None, str(folder), block=False)
    yield blocks
    blocks.close(verbose=False)


def opened(tab: Tab, url: str, until: str = DONE) -> Tab:
    tab.goto(url)
    tab.wait_for_function(until, timeout=WAIT)
    return tab


def control(tab: Tab, name: str) -> Locator:
    return tab.locator(f".pz-view .pz-choice:has(> span:text-is('{name}')) > select")


def settled(tab: Tab, until: str = DONE) -> None:
    tab.wait_for_function(until, timeout=WAIT)


def cell(tab: Tab, name: str, column: int, row: int, columns: int) -> None:
    """Click a cell of a matrix."""
    canvas = tab.get_by_label(name, exact=True)
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    wide = min(96, (box["width"] - 31) / columns)
    tall = max(16, min(34, wide * 0.6))
    tab.mouse.click(box["x"] + 30 + (column + 0.5) * wide, box["y"] + 18 + (row + 0.5) * tall)


def test_a_link_restores_every_number(browser: Browser, mice: gr.Blocks) -> None:
    with visit(browser, mice.local_url) as app:
        tab = opened(app.tab, f"{mice.local_url}?view=patching")
        first = tab.evaluate(SHOWN)
        tab.get_by_role("group", name="Corrupt image").get_by_role("button").nth(7).click()
        settled(tab)
        choices = {
            "Class": "3",
            "minus class": "5",
            "Direction": "corrupt",
            "Tokens of": "attn_out",
            "Colours": "metric",
        }
        for name, value in choices.items():
            control(tab, name).select_option(value)
            settled(tab)
        tab.get_by_label("The map of every layer", exact=True).locator("..").press("ArrowRight")
        settled(tab)
        cell(tab, "Heads to ablate", 1, 0, 4)
        settled(tab)
        cell(tab, "Effect of each head", 2, 0, 4)
        settled(tab)
        tab.mouse.move(0, 0)
        shown, link = tab.evaluate(SHOWN), tab.url
        asked = {key: value[0] for key, value in parse_qs(urlparse(link).query).items()}
        wanted = {
            "corrupt": "7", "target": "3", "against": "5", "into": "corrupt", "site": "attn_out", "unit": "metric",
            "head": "2", "ablate": "0.1", "cell": "head",
        }  # fmt: skip
        assert wanted.items() <= asked.items()
        assert shown["heads"] != first["heads"]
        found = Axe().run(tab, ".pz-root").response["violations"]
        assert not [rule["id"] for rule in found if rule["impact"] in ("serious", "critical")]
        assert not app.complaints
    with visit(browser, mice.local_url) as other:
        assert opened(other.tab, link).evaluate(SHOWN) == shown
        for metric in ("logit", "probability"):
            control(other.tab, "Metric").select_option(metric)
            settled(other.tab)
            with visit(browser, mice.local_url) as third:
                assert opened(third.tab, other.tab.url).evaluate(SHOWN) == other.tab.evaluate(SHOWN)
        assert not other.complaints


def test_the_numbers_are_those_of_the_endpoint(browser: Browser, mice: gr.Blocks, scene: Callable[..., Scene]) -> None:
    keys = {"img": "2", "corrupt": "noise:1,2", "into": "corrupt", "metric": "logit"}
    query = "&".join(f"{key}={value}" for key, value in keys.items())
    with visit(browser, mice.local_url) as app:
        shown = opened(app.tab, f"{mice.local_url}?view=patching&{query}").evaluate(SHOWN)
        download = app.tab.evaluate(EXPORTED)
        app.tab.get_by_role("button", name="Find the circuit").click()
        drawing = app.tab.locator(".pz-circuit svg")
        drawing.wait_for(timeout=WAIT)
        drawn, whole = drawing.locator("path").count(), app.tab.evaluate(EXPORTED)
        assert parse_qs(urlparse(app.tab.url).query)["circuit"] == ["1"]
        told = app.tab.locator(".pz-detail[aria-label=Circuit] .pz-words").inner_text()
    circuit, made = circuit_values(scene(**keys)), dict[str, Any]()
    share = circuit["figures"][0]["value"]
    assert drawn == len(circuit["edges"]) and told.startswith(f"{drawn} of 110 edges give {share:.3f} of logit")
    exec(whole["code"], made)
    assert int((made["circuit"] != 0).sum()) == drawn and whole["svg"].count("<path") == drawn
    found = values(scene(**keys))
    exact, share = (torch.tensor(found[name]).flatten() for name in ("values", "recovered"))
    torch.testing.assert_close(torch.tensor(shown["heads"]), exact, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.tensor(download["share"]), share, rtol=1e-4, atol=1e-4)
    assert download["axes"] == ["layer", "head"]
    assert download["svg"].startswith("<svg") and download["svg"].count("<rect") > 2 * (4 + 17)
    assert "gaussian_noise(x, where)" in download["code"]


def test_an_estimate_stands_beside_exact_runs(browser: Browser, mice: gr.Blocks, scene: Callable[..., Scene]) -> None:
    keys = {"img": "2", "corrupt": "5", "metric": "logit"}
    query = "&".join(f"{key}={value}" for key, value in keys.items())
    answer = compared_values(scene(**keys, estimate="relp"))
    both = torch.tensor([answer["exact"], answer["values"]]).flatten(1)
    wanted = float(torch.corrcoef(both)[0, 1])
    with visit(browser, mice.local_url) as app:
        tab = opened(app.tab, f"{mice.local_url}?view=patching&{query}")
        panel = tab.get_by_role("group", name="Estimates", exact=True)
        control(tab, "Estimate").select_option("relp")
        panel.locator("tbody tr").nth(5).wait_for()  # every way has its correlations
        said = f"Over 8 heads the correlation with exact runs is {wanted:.2f}."
        assert said in panel.locator(".pz-words").inner_text()
        assert panel.locator("tbody tr").nth(2).locator("td").nth(1).inner_text() == f"{wanted:.2f}"
        control(tab, "of").select_option("tokens")
        settled(tab, f"{DONE} && window.prisma.state.parts === 'tokens'")
        expect(panel.locator("circle")).to_have_count(2 * 17)
        state, out = parse_qs(urlparse(tab.url).query), tab.evaluate(EXPORTED)
        assert (state["estimate"], state["parts"]) == (["relp"], ["tokens"])
        made: dict[str, Any] = {}
        exec(out["code"], made)
        torch.testing.assert_close(made["estimate"], both[1].view(2, 4), rtol=0, atol=1e-5)
        assert out["svg"].count("<circle") == 2 * 17
        with visit(browser, mice.local_url) as other:
            again = opened(other.tab, tab.url).get_by_role("group", name="Estimates", exact=True)
            expect(again.locator(".pz-words")).to_have_text(panel.locator(".pz-words").inner_text())
        tab.set_viewport_size({"width": 390, "height": 844})
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390


def test_paths_are_drawn_by_both_forms(browser: Browser, mice: gr.Blocks, scene: Callable[..., Scene]) -> None:
    answer = paths_values(scene(img="2", corrupt="5"))
    changes = torch.tensor(answer["values"])
    largest = int(changes.abs().amax(0).argmax())
    name = " → ".join(answer[side][i] for side, i in zip(("senders", "receivers"), divmod(largest, 27), strict=True))
    both = changes.abs().amin(0) >= 0.01 * changes.abs().max()
    count = int(((changes[0] * changes[1] < 0) & both).sum())
    with visit(browser, mice.local_url) as app:
        tab = opened(app.tab, f"{mice.local_url}?view=patching&img=2&corrupt=5")
        panel = tab.get_by_role("group", name="Paths", exact=True)
        control(tab, "Show").select_option("strongest")
        expect(panel.locator("svg rect")).to_have_count(2 * 12)
        assert panel.locator("svg text:has-text('→')").first.inner_html() == name
        words = panel.locator(".pz-words").inner_text()
        assert words.startswith(f"{count} of 110 paths have another sign when MLPs are computed anew")
        panel.get_by_text("Show the paths as table").click()
        assert panel.locator("tbody tr").first.locator("td").first.inner_text() == name
        out, made = tab.evaluate(EXPORTED), dict[str, Any]()
        exec(out["code"], made)
        torch.testing.assert_close(torch.stack(made["changes"]), changes, rtol=0, atol=1e-5)
        with visit(browser, mice.local_url) as other:
            again = opened(other.tab, tab.url).get_by_role("group", name="Paths", exact=True)
            expect(again.locator(".pz-words")).to_have_text(words)
        control(tab, "Show").select_option("signs")
        expect(panel.locator("svg text:text-is('±')")).to_have_count(min(count, 12))


def test_patches_are_painted_by_pointer_and_by_key(browser: Browser, mice: gr.Blocks) -> None:
    with visit(browser, mice.local_url) as app:
        tab = opened(app.tab, f"{mice.local_url}?view=patching&corrupt=blur:")
        assert "the whole image is changed" in tab.locator(".pz-painting").inner_text()
        canvas = tab.locator(".pz-paint")
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        assert box is not None
        side = box["width"] / 4
        tab.mouse.move(box["x"] + 1.5 * side, box["y"] + 0.5 * side)
        tab.mouse.down()
        tab.mouse.move(box["x"] + 2.5 * side, box["y"] + 0.5 * side, steps=4)
        tab.mouse.move(box["x"] + 2.5 * side, box["y"] + 1.5 * side, steps=4)
        tab.mouse.up()
        settled(tab, f"{READY} && window.prisma.state.corrupt === 'blur:1,2,6'")
        pad = canvas.locator("..")
        for key in ("ArrowDown", "Space", "ArrowUp", "Space"):
            pad.press(key)
        settled(tab, f"{READY} && window.prisma.state.corrupt === 'blur:1,2,10'")
        assert "3 of 16 patches are changed" in tab.locator(".pz-painting").inner_text()
        control(tab, "Corrupt image").select_option("mean")
        settled(tab, f"{DONE} && window.prisma.state.corrupt === 'mean:1,2,10'")
        shown = tab.evaluate(SHOWN)
        assert not app.complaints
        with visit(browser, mice.local_url) as other:
            again = opened(other.tab, tab.url)
            assert again.evaluate(SHOWN) == shown
            again.locator(".pz-paint").locator("..").press("Escape")
            settled(again, f"{DONE} && window.prisma.state.corrupt === 'mean:'")


def test_exact_cells_stream_and_stop(
    browser: Browser, mice: gr.Blocks, monkeypatch: pytest.MonkeyPatch, scene: Callable[..., Scene]
) -> None:
    monkeypatch.setattr(maps, "QUICK", 0)
    monkeypatch.setattr(runs, "AT_ONCE", 1.0)
    asked: list[Any] = []
    exact = runs.exact

    def slow(*args: Any) -> torch.Tensor:
        asked.append(args)
        time.sleep(0.4 if holding else 0)
        return exact(*args)

    holding = [1]
    monkeypatch.setattr(runs, "exact", slow)
    with visit(browser, mice.local_url) as app:
        count = "[...window.prisma.page.figures.patching.known.head.exact].reduce((a, b) => a + b, 0)"
        tab = opened(app.tab, f"{mice.local_url}?view=patching&img=3", f"{READY} && {count} >= 2")
        status = tab.locator(".pz-running")
        assert "of 8 heads" in status.inner_text()
        status.get_by_role("button", name="Cancel").click()
        status.get_by_text("Cancelled").wait_for()
        done = tab.evaluate(count)
        tab.wait_for_timeout(1500)
        assert (tab.evaluate(count), 2 <= done < 8) == (done, True)
        assert len(asked) <= done + 2  # the server does not compute what nobody waits for
        holding.clear()
        status.get_by_role("button", name="Go on").click()
        settled(tab)
        shown = tab.evaluate(SHOWN)
        assert sum(shown["exact"]) == runs.TOP
        torch.testing.assert_close(
            torch.tensor(shown["heads"]), torch.tensor(values(scene(img="3"))["values"]).flatten()
        )
        status.get_by_role("button", name="Every token exactly (34 runs)").click()
        settled(tab, f"{DONE} && window.prisma.state.every === '1'")
        every = tab.evaluate(SHOWN)
        assert sum(every["exact"]) == 34
        tab.get_by_text("Show as table").click()
        expect(tab.locator(".pz-more:visible tbody tr")).to_have_count(8 + 17)
        with visit(browser, mice.local_url) as other:
            assert opened(other.tab, tab.url).evaluate(SHOWN)["tokens"] == every["tokens"]
        assert not app.complaints


def test_a_vit_tiny_is_patched_at_phone_width(browser: Browser, tiny: gr.Blocks) -> None:
    with visit(browser, tiny.local_url) as app:
        tab = app.tab
        tab.set_viewport_size({"width": 390, "height": 844})
        opened(tab, f"{tiny.local_url}?view=patching&corrupt=noise:90,91,104,105", READY)
        shown = tab.evaluate(SHOWN)
        assert len(shown["heads"]) == 36 and len(shown["tokens"]) == 12 * 197
        assert not json.dumps(shown["heads"]).count("null")  # an estimate for every head, at once
        settled(tab)
        assert sum(tab.evaluate(SHOWN)["exact"]) == runs.TOP
        assert tab.locator(".pz-detail:visible").count() == 2
        stage = tab.get_by_role("application", name="Effect of each token in one layer")
        for key in ("ArrowDown", "ArrowDown", "ArrowDown", "Enter"):  # from the class token into the image
            stage.press(key)
        settled(tab, f"{DONE} && window.prisma.state.cell === 'token'")
        assert tab.locator(".pz-detail:visible").count() == 3
        assert "goes from" in tab.locator(".pz-detail .pz-words").first.inner_text()
        width, height = tab.evaluate("[document.documentElement.scrollWidth, document.body.scrollHeight]")
        assert width <= 390 and height < 5300
        assert not app.complaints
