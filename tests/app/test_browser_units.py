"""The Units tab: a visitor steps through units, searches them, and takes the figure along."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from playwright.sync_api import expect
from prisma_app.library import Scene
from prisma_app.views import registers

import prisma
from tests.app.conftest import DIGITS
from tests.app.visitor import App


def test_a_visitor_steps_through_units(plain: App, scene: Callable[..., Scene]) -> None:
    there, site = scene(model=DIGITS, img="3"), "blocks.1.mlp.post"
    own = prisma.record(there.loaded.model, there.picture.x[None], site)[1][site][0, 1:].amax(0)
    order = own.argsort(descending=True).tolist()
    plain.open("?v=1&view=units&img=3&layer=1")
    state = plain.ready()
    assert (state["units"], state["number"]) == ("mlp.post", order[0])
    plain.tab.get_by_role("button", name="The next unit in the list").click()
    plain.ready(f"s.number === {order[1]}")
    title = plain.tab.locator(".pz-view .pz-latent-title")
    assert title.inner_text() == f"Unit {order[1]} of blocks.1.mlp.post"
    assert plain.tab.locator(".pz-lit-images figure").count() == 12
    plain.over(plain.tab.locator(".pz-unit-here .pz-map"), 2, 1)
    plain.tab.locator("#pz-figure .pz-words").first.get_by_text("Row 2, column 3: ").wait_for()
    plain.tab.locator(".pz-view .pz-search[type=search]").fill("#7")
    plain.ready("s.find === '#7'")
    rows = plain.tab.locator(".pz-units button")
    assert rows.evaluate_all("all => all.map((e) => e.dataset.unit)") == ["7"]
    rows.first.click()
    plain.ready("s.number === 7")
    out: Any = plain.tab.evaluate(
        "(() => { const e = window.prisma.page.figures.units.exported(); return { ...e, svg: e.svg() }; })()"
    )
    made: dict[str, Any] = {}
    exec(out["code"], made)
    found = torch.tensor(out["numbers"]["values"]["values"])
    torch.testing.assert_close(found, made["values"], rtol=0, atol=1e-6)
    assert out["svg"].count("<image") == 12 and out["title"] == "Unit 7 of blocks.1.mlp.post"
    plain.tab.locator(".pz-view:visible .pz-choice select").first.select_option("logits")
    assert plain.ready("s.units === 'logits'")["number"] == int(there.loaded.model(there.picture.x[None])[0].argmax())
    address = plain.tab.url
    plain.tab.set_viewport_size({"width": 390, "height": 844})
    assert plain.tab.evaluate("document.documentElement.scrollWidth") <= 390
    plain.tab.goto(address)
    assert plain.ready()["units"] == "logits" and plain.tab.locator(".pz-trouble").first.is_hidden()
    assert "find" not in plain.ready()  # what was searched for was of the other units


def test_register_neurons_are_moved(plain: App, scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registers, "FACTORS", ("1.1",))  # norms of so small a model differ little
    answer = registers.registers_values(scene(model=DIGITS, img="3", outlying="1.1", moved=3))
    norms = torch.tensor(answer["values"])
    above = (norms > answer["cutoff"]).sum(1).tolist()
    plain.open("?v=1&view=units&img=3&outlying=1.1").ready()
    panel = plain.tab.get_by_role("group", name="Register neurons", exact=True)
    panel.locator(".pz-choice:has(> span:text-is('Neurons moved')) > select").select_option("3")
    plain.ready("s.moved === 3")
    words = panel.locator(".pz-words")
    expect(words).to_contain_text(f"{above[0]} of 16 patches of this image have a norm above {answer['cutoff']:.3f}")
    expect(words).to_contain_text(f"With 3 register neurons moved: {above[2]}; with as many random ones: {above[3]}.")
    assert panel.locator("figure").count() == 4
    out: Any = plain.figure("f.exported()")
    made: dict[str, Any] = {}
    exec(out["code"], made)
    torch.testing.assert_close(made["norms"], norms, rtol=0, atol=1e-5)
    address = plain.tab.url
    plain.tab.set_viewport_size({"width": 390, "height": 844})
    assert plain.tab.evaluate("document.documentElement.scrollWidth") <= 390
    plain.tab.goto(address)
    plain.ready()
    expect(words).to_contain_text(f"{above[0]} of 16 patches of this image")
    layer, neuron = answer["neurons"][0]
    panel.locator("ol button").first.click()
    state = plain.ready(f"s.number === {neuron}")
    assert (state["units"], state["layer"], state["outlying"]) == ("mlp.post", layer, "1.1")


def test_the_bar_of_norms_marks_the_cutoff_where_it_is(plain: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registers, "FACTORS", ("1.1",))
    plain.open("?v=1&view=units&img=3&outlying=1.1").ready()
    most: float = plain.figure("Math.max(...f.registers.found.arrays.norms.values)")
    for share, places in ((0.5, [0, 50, 100]), (0.3, [0, 30, 100]), (0.9, [0, 90]), (1.2, [0, 100])):
        drawn = plain.figure(
            "(() => { const r = f.registers, { facts, arrays } = r.found;"
            f" r.draw({{ facts: {{ ...facts, cutoff: {share * most} }}, arrays }});"
            " const ticks = r.bar.element.querySelectorAll('.pz-ticks span');"
            " return [...ticks].map((e) => [e.textContent, e.style.left]); })()"
        )
        assert [float(left.rstrip("%")) for _, left in drawn] == pytest.approx(places, abs=1e-3)
        assert any(text.startswith("above") for text, _ in drawn) == (share < 1)  # else no patch of the image is


def test_a_layer_that_is_not_there_is_said(plain: App) -> None:
    plain.open("?v=1&view=units&outlying=5&after=7").ready("s.after === undefined")
    expect(plain.tab.locator(".pz-trouble").first).to_contain_text(
        "asks for after 7; lab/digits has layers from 0 to 1."
    )
    plain.allowed = ("400",)  # and at the last layer no patch has such a norm
    plain.tab.goto(f"{plain.url}?v=1&view=decompose&span=99")
    plain.ready("s.span === undefined")
    expect(plain.tab.locator(".pz-trouble").first).to_contain_text("asks for span 99; lab/digits has 1, 2, 3")
