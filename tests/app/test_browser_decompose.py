"""Decompose: heads are named below the bars, and the link restores the names."""

from collections.abc import Callable
from typing import Any

import torch
from playwright.sync_api import expect
from prisma_app.library import Scene
from prisma_app.views.naming import naming_values

from tests.app.conftest import DIGITS
from tests.app.visitor import App


def test_heads_are_named(plain: App, scene: Callable[..., Scene]) -> None:
    answer = naming_values(scene(model=DIGITS, span=2))
    explained, random = (torch.tensor(answer[name]) for name in ("values", "random"))
    layer, head = divmod(int((explained - random).argmax()), 4)
    plain.open("?v=1&view=decompose&img=3").ready()
    panel = plain.tab.get_by_role("group", name="Naming heads", exact=True)
    panel.locator(".pz-choice:has(> span:text-is('Names of each head')) > select").select_option("2")
    plain.ready("s.span === 2")
    expect(panel.locator("tbody tr")).to_have_count(8)
    first = panel.locator("tbody tr").first
    assert first.locator("th").inner_text() == f"layer {layer}, head {head}"
    assert first.locator("td").first.inner_text() == " · ".join(answer["names"][layer][head])
    assert first.locator("td").nth(1).inner_text().strip() == f"{100 * explained[layer, head]:.0f} %"
    out: Any = plain.figure("f.exported()")
    made: dict[str, Any] = {}
    exec(out["code"], made)
    torch.testing.assert_close(made["explained"], explained, rtol=0, atol=1e-6)
    address = plain.tab.url
    plain.tab.set_viewport_size({"width": 390, "height": 844})
    assert plain.tab.evaluate("document.documentElement.scrollWidth") <= 390
    plain.tab.goto(address)
    assert plain.ready()["span"] == 2
    expect(first.locator("th")).to_have_text(f"layer {layer}, head {head}")
