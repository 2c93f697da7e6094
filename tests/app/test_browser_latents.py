"""The Latents tab: a visitor looks at a latent, changes it, sees the answer change, and shares the address."""

from pathlib import Path

import pytest
import torch
from playwright.sync_api import Browser
from prisma_app.coders import coders_of
from prisma_app.models import Mouse

import prisma
from prisma.repository import Published
from prisma.sparse.splicing import Splice
from tests.app.coded import EARLY, END, coded_hub
from tests.app.conftest import DIGITS
from tests.app.visitor import served, visit


@torch.no_grad()
def test_a_visitor_ablates_a_latent(browser: Browser, lab: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    hub = coded_hub(lab, tmp_path_factory)
    mouse = Mouse(Published(DIGITS, hub))
    coder, x = coders_of(mouse)[1].coder, mouse.picture("3").x[None]
    z = coder.encode(prisma.record(mouse.final.model, x, coder.site)[1][coder.site])[0].abs().amax(0)
    order = [j for j in z.argsort(descending=True, stable=True).tolist() if z[j] > 0]
    with served(hub, DIGITS) as url, visit(browser, url) as page:
        page.open("?v=1&model=lab/digits&view=latents&img=3")
        page.ready()
        own = page.tab.locator("[aria-label='Latents of this image'] button")
        shown = own.evaluate_all("all => all.map((e) => Number(e.dataset.latent))")
        assert shown == order[:12]
        own.nth(1).click()
        page.ready(f"s.latent === {order[1]}")
        page.tab.locator(".pz-latent-title").get_by_text(f"Latent {order[1]}").wait_for()
        page.tab.locator(".pz-steer select").select_option("scale:0")
        page.ready("s.change === 'scale:0'")
        logits = prisma.run(mouse.final.model, x, {coder.site: Splice(coder).ablate(order[1])})[0]
        cells = page.tab.locator(".pz-steer tbody tr").evaluate_all(
            "rows => rows.map((row) => [...row.children].map((cell) => cell.textContent))"
        )
        for label, before, after in cells:
            c = mouse.labels.index(label)
            assert float(after[:-2]) == pytest.approx(100 * logits.softmax(-1)[c].item(), abs=0.06)
            assert float(before[:-2]) == pytest.approx(100 * mouse.final.model(x)[0].softmax(-1)[c].item(), abs=0.06)
        page.tab.locator(".pz-view .pz-search[type=search]").fill("#7")
        page.ready("s.find === '#7'")
        assert page.tab.locator(".pz-more .pz-latent").evaluate_all("all => all.map((e) => e.dataset.latent)") in (
            [],
            ["7"],
        )
        address = page.tab.url
        assert "latent=" in address and "change=scale:0" in address
        page.tab.locator(".pz-view .pz-choice select").first.select_option(EARLY)
        assert page.ready("s.step === 0")["coder"] == EARLY
        page.tab.set_viewport_size({"width": 390, "height": 844})
        assert page.tab.evaluate("document.documentElement.scrollWidth") <= 390
        page.tab.goto(address)
        again = page.ready()
        assert (again["latent"], again["change"], again["find"]) == (order[1], "scale:0", "#7")
        assert page.tab.locator(".pz-trouble").first.is_hidden() and again.get("coder", END) == END
