"""Training in a real browser: moving through checkpoints shows the library's numbers, and asks the server for none."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Browser, expect
from playwright.sync_api import Page as Tab
from prisma_app.library import Library
from torch import Tensor

import prisma
from prisma.repository import Published
from prisma.run_folder import read_metrics
from tests.app.conftest import DIGITS
from tests.app.plain import both_served, drawn, visited

FIGURE = "window.prisma.page.figures.training"
STEPS = [0, 1, 2, 4, 8, 16, 32, 40]


@pytest.fixture(scope="module")
def url(library: Library, vit_library: Library) -> Iterator[str]:
    with both_served(library, vit_library) as address:
        yield address


@pytest.fixture
def tab(browser: Browser, url: str) -> Iterator[Tab]:
    with visited(browser, url + "?view=training&img=1&layer=1&head=2&sort=class_token") as page:
        yield page


def row(lab: Path, step: int, layer: int, head: int) -> Tensor:
    loaded = prisma.load(DIGITS, f"step-{step:06d}", hub=lab)
    assert loaded.transform is not None
    x = loaded.transform.normalise(Published(DIGITS, lab).probe()[0][1:2])
    _, acts = prisma.record(loaded.model, x, f"blocks.{layer}.attn.pattern")
    return acts[f"blocks.{layer}.attn.pattern"][0, head, 0].double()


def near(tab: Tab, expected: Tensor) -> bool:
    shown = torch.tensor(tab.evaluate(f"Array.from({FIGURE}.values)"), dtype=torch.float64)
    return bool((shown - expected).abs().max() <= 2e-3)


def test_the_slider_moves_through_training_without_the_server(tab: Tab, lab: Path) -> None:
    assert near(tab, row(lab, 40, 1, 2))
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    slider = tab.get_by_role("slider", name="Checkpoint")
    slider.press("Home")
    for _ in range(4):
        slider.press("ArrowRight")
    assert drawn(tab).evaluate("window.prisma.state.step") == 8
    assert slider.get_attribute("aria-valuetext") == "step 8" and near(tab, row(lab, 8, 1, 2))
    assert not [address for address in asked if "/view/" in address]
    lines = {line["step"]: line for line in read_metrics(Published(DIGITS, lab).file("metrics.jsonl"))}
    accuracy, loss = lines[8]["test_accuracy"], lines[8]["test_loss"]
    said = f"Test accuracy {accuracy:.3f}. Test loss {loss:.3f}."
    expect(tab.locator("#pz-figure .pz-words")).to_contain_text(said)
    expect(tab.locator(".pz-legend").first).to_contain_text(f"test accuracy{accuracy:.4g}")
    measure = f"""() => {{ const f = {FIGURE}, found = [];
      for (let i = 0; i < 40; i += 1) {{ f.index = i % 8; f.draw(); found.push(f.ms); }}
      return found.sort((a, b) => a - b)[37]; }}"""
    assert tab.evaluate(measure) < 150  # milliseconds, the 95th percentile
    slide = """async () => { const { page } = window.prisma, real = history.replaceState; let count = 0;
      history.replaceState = (...given) => { count += 1; real.apply(history, given); };
      for (let i = 0; i < 300; i += 1) await page.set({ head: i % 4, layer: i % 2 });
      const shown = location.href; const { href } = page.address; history.replaceState = real;
      return [count, shown === href, new URL(href).searchParams.get("head")]; }"""
    count, written, head = tab.evaluate(slide)  # browsers stop pages that write more than 100 times in 30 seconds
    assert count < 85 and not written and head == "3"


def test_scores_appearance_and_the_click_on_a_curve(tab: Tab, lab: Path) -> None:
    loaded = [prisma.load(DIGITS, f"step-{step:06d}", hub=lab) for step in STEPS]
    assert loaded[0].transform is not None
    images = loaded[0].transform.normalise(Published(DIGITS, lab).probe()[0][:32])
    expected = [prisma.head_scores(one.model, images, "class_token").mean[0, 1, 2].item() for one in loaded]
    score = tab.evaluate(f"{FIGURE}.score")
    found = tab.evaluate(f"[0,1,2,3,4,5,6,7].map((i) => {FIGURE}.all({score}, i)[1 * 4 + 2])")
    assert found == pytest.approx(expected, abs=1e-6)
    step = next(s for s, value in zip(STEPS, expected, strict=True) if value >= expected[-1] / 2)
    when = (
        "above half of that from the first checkpoint on" if step == 0 else f"first reaches half of that at step {step}"
    )
    said = tab.locator(".pz-appears li").nth(1)
    expect(said).to_contain_text(f"Class token of layer 1, head 2 ends at {expected[-1]:.3f}; it ")
    expect(said).to_contain_text(when)
    levels = torch.tensor(expected)
    error = [sum(float((x - x.mean()).square().sum()) for x in (levels[:c], levels[c:])) for c in range(1, len(STEPS))]
    change = STEPS[1 + error.index(min(error))]
    sentence = said.inner_text()
    assert f" Changed most by step {change} (" in sentence or " No single step of change: " in sentence
    dots = tab.locator(".pz-step-chart").last.locator("circle").count()
    assert dots == tab.evaluate(
        f"[...{FIGURE}.changes.change.values].slice({score} * 8, {score} * 8 + 8).filter(Number.isFinite).length"
    )
    chart = tab.locator(".pz-step-chart").last
    x = tab.evaluate(f"{FIGURE}.scored.across(4)")
    chart.hover(position={"x": x + 2, "y": 60})
    expect(tab.locator("#pz-figure .pz-words")).to_contain_text("Step 4: ")
    assert tab.evaluate("window.prisma.state.step") == 40
    chart.click(position={"x": x + 2, "y": 60})
    assert drawn(tab).evaluate("window.prisma.state.step") == 4 and near(tab, row(lab, 4, 1, 2))
    tab.locator("summary").last.click()
    expect(tab.locator("#pz-figure tbody tr")).to_have_count(len(STEPS))


def test_play_shows_every_checkpoint_and_stops_at_the_end(tab: Tab, lab: Path) -> None:
    tab.evaluate("window.seen = []; setInterval(() => window.seen.push(window.prisma.state.step), 20)")
    play = tab.get_by_role("button", name="Play")
    play.click()
    tab.wait_for_function("window.seen.includes(0)")
    tab.wait_for_function(f"!{FIGURE}.timer", timeout=20_000)
    assert tab.evaluate("[...new Set(window.seen)].sort((a, b) => a - b)") == STEPS
    assert drawn(tab).evaluate("window.prisma.state.step") == 40
    expect(tab.get_by_role("button", name="Play")).to_be_visible()


def test_its_files_have_the_numbers_and_python_that_makes_them(browser: Browser, url: str) -> None:
    with visited(browser, f"{url}?view=training", 390) as tab:
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        out: Any = tab.evaluate(f"(() => {{ const e = {FIGURE}.exported(); return {{...e, svg: e.svg()}}; }})()")
    scope: dict[str, Any] = {}
    exec(out["code"], scope)
    values = torch.tensor(out["numbers"]["values"]["values"]).view(out["numbers"]["values"]["shape"])
    torch.testing.assert_close(values, scope["values"], rtol=0, atol=1e-6)
    assert out["svg"].startswith("<svg") and out["svg"].count("<polyline") >= 13 and out["svg"].count("<image") == 2


def test_a_model_with_one_checkpoint_gets_a_sentence(browser: Browser, url: str, vit_library: Library) -> None:
    with visited(browser, f"{url}?view=training&model={vit_library.names[0]}") as tab:
        expect(tab.get_by_text("published with one checkpoint")).to_be_visible()
        expect(tab.get_by_role("button", name="Play")).to_be_hidden()
