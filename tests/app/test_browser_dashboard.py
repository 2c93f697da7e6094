"""The dashboard of a coder in a browser, from a disk: it is searched and sorted, and a latent is looked at."""

from pathlib import Path

import torch
from playwright.sync_api import Browser

from prisma.analysis.clip_dissect import Proposal
from prisma.sparse.dashboard import dashboard
from prisma.sparse.latents import latents
from tests.sparse.test_coders import random_coder
from tests.sparse.test_dashboard import LABELS, transform
from tests.variants import images_of, model_of

M = 70
HOSTILE = "<img src=x onerror='window.harmed=1'> stripes"


def test_a_visitor_finds_a_latent(browser: Browser, tmp_path: Path) -> None:
    model = model_of("base", torch.float32, channels=3)
    images, coder = images_of(model, 6), random_coder("topk", 12, M, 9, 1, sites=("blocks.0.resid_post",)).float()
    coder.b_enc[:5] = -1e4
    found = latents(coder, model, images, top=4, effect_images=2)
    names = {7: Proposal(HOSTILE, "CLIP-Dissect")}
    page = dashboard(found, coder, images, transform(6), tmp_path / "d", labels=LABELS, names=names)
    assert found.effect_size is not None
    alive = [j for j in range(M) if not found.dead[j]]
    by_effect = sorted(alive, key=lambda j: (-found.effect_size[j].item(), j))  # type: ignore[index]
    with browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark") as context:
        tab, asked = context.new_page(), list[str]()
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("pageerror", lambda error: asked.append(f"error: {error}"))
        tab.goto(page.as_uri())
        tab.wait_for_function("window.prisma?.ready")

        def shown() -> list[int]:
            return [int(x) for x in tab.locator(".pz-latent").evaluate_all("all => all.map((e) => e.dataset.latent)")]

        assert len(by_effect) > 48 and shown() == by_effect[:48]
        tab.get_by_text("Show more").click()
        assert shown() == by_effect
        tab.locator("select").nth(0).select_option("density")
        assert shown()[0] == max(alive, key=lambda j: (found.density[j].item(), -j))
        tab.locator("select").nth(1).select_option("dead")
        assert set(shown()) == {j for j in range(M) if found.dead[j]} and len(shown()) >= 5
        tab.locator("select").nth(1).select_option("all")
        tab.locator(".pz-search").fill("stripes")
        assert shown() == [7]
        tab.locator(".pz-search").fill("#12")
        assert shown() == [12]
        tab.locator(".pz-latent").click()
        tab.locator(".pz-latent-title").get_by_text("Latent 12").wait_for()
        assert tab.evaluate("location.hash").endswith("latent=12")
        card = tab.locator(".pz-latent-card")
        assert card.locator("figure").count() == int((found.image[12] >= 0).sum())
        near = found.near[12, 0].item()
        card.locator("[aria-label='Nearest latents'] button").first.click()
        tab.locator(".pz-latent-title").get_by_text(f"Latent {near}", exact=False).wait_for()
        tab.go_back()
        tab.locator(".pz-latent-title").get_by_text("Latent 12").wait_for()
        tab.goto(f"{page.as_uri()}#latent=7")
        tab.get_by_text("The name is a proposal by CLIP-Dissect.").wait_for()
        tab.goto(f"{page.as_uri()}#latent=999")
        tab.get_by_text("this coder has latents from 0 to 69").wait_for()
        tab.goto(f"{page.as_uri()}#sort=toString&which=all")  # a name that every object has, and no order
        tab.wait_for_function("document.querySelectorAll('.pz-latent').length === 48")
        assert shown() == list(range(48))
        assert tab.evaluate("[document.documentElement.scrollWidth, window.harmed]") == [390, None]
        plain = random_coder("topk", 12, 8, 3, 1, sites=("blocks.0.attn.z",)).float()  # no classes, no effects
        bare = latents(plain, model, images, effect_images=0)
        tab.goto(dashboard(bare, plain, images, transform(6), tmp_path / "bare").as_uri())
        tab.wait_for_function("window.prisma?.ready")
        assert len(shown()) == int((~bare.dead).sum()) and tab.locator(".pz-trouble").is_hidden()
        assert all(url.startswith(("file:", "data:")) for url in asked), asked
