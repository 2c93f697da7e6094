"""The Steering tab: the curve, this image at a dose, and the link that restores both."""

from collections.abc import Callable
from typing import Any

import torch
from playwright.sync_api import expect
from prisma_app.library import Scene
from prisma_app.views import steering

from tests.app.conftest import DIGITS
from tests.app.visitor import App


def test_a_visitor_steers_an_image(plain: App, scene: Callable[..., Scene]) -> None:
    answer = steering.values(scene(model=DIGITS, img="3", target=2, reach=8))
    plain.open("?v=1&view=steering&img=3&target=2").ready()
    control = plain.tab.locator(".pz-view .pz-choice:has(> span:text-is('Doses up to')) > select")
    control.select_option("8")
    plain.ready("s.reach === 8")
    words, at = plain.tab.locator(".pz-view .pz-words[role=status]"), answer["doses"].index(3)
    plain.tab.get_by_role("slider", name="Dose", exact=True).fill(str(at))
    plain.ready("s.dose === 3")
    said = f"At dose 3 the probability of 2 is {answer['values'][at]:.3f} ("
    expect(words).to_contain_text(said)
    best = max(range(10), key=lambda c: answer["own"]["values"][at][c])
    caption = plain.tab.locator(".pz-view figcaption").nth(1)
    expect(caption).to_have_text(f"This image at dose 3: {best}")
    shown = plain.tab.locator(".pz-view .pz-classes tbody tr").first.inner_text()
    assert shown.split()[0] == "2" and f"{100 * answer['own']['values'][at][2]:.1f} %" in shown
    out: Any = plain.figure("(() => { const e = f.exported(); return { ...e, svg: e.svg() }; })()")
    made: dict[str, Any] = {}
    exec(out["code"], made)
    effect = torch.tensor(out["numbers"]["effect"]["values"])
    torch.testing.assert_close(effect, made["values"], rtol=0, atol=1e-5)
    assert out["svg"].count("<polyline") == 5 + 2 and out["title"] == "Steering towards 2 at blocks.0.resid_post"
    address = plain.tab.url
    plain.tab.set_viewport_size({"width": 390, "height": 844})
    assert plain.tab.evaluate("document.documentElement.scrollWidth") <= 390
    plain.tab.goto(address)
    state = plain.ready()
    assert (state["reach"], state["dose"], state["target"]) == (8, 3, 2)
    expect(words).to_contain_text(said)
