"""Pretrained models in a real browser: a ViT of timm with its labels, a CLIP of open_clip with prompts."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from playwright.sync_api import Browser, expect
from prisma_app.pretrained import Pretrained

import prisma
from prisma.analysis.lens.logit_lens import logit_lens
from prisma.checkpoint import write_checkpoint
from tests.app.conftest import ANIMALS
from tests.app.visitor import WAIT, App, near, served, visit
from tests.variants import model_of

PROMPTS = ["a photo of a newt", "an owl", "two elks"]


@pytest.fixture(scope="module")
def vit_url(vit_folder: Path) -> Iterator[str]:
    with served(None, vit_folder) as address:
        yield address


@pytest.fixture
def vit(browser: Browser, vit_url: str) -> Iterator[App]:
    with visit(browser, vit_url) as visitor:
        yield visitor


@pytest.fixture(scope="module")
def clip_url(clip_folder: Path) -> Iterator[str]:
    with served(None, clip_folder, PROMPTS) as address:
        yield address


@pytest.fixture
def clip(browser: Browser, clip_url: str) -> Iterator[App]:
    with visit(browser, clip_url) as visitor:
        yield visitor


def test_a_vit_opens_on_its_attention_to_a_real_picture(vit: App, vit_folder: Path) -> None:
    shown = vit.open().state("attention")
    subject = Pretrained(str(vit_folder))
    _, acts = prisma.record(subject.final.model, subject.example(0).x[None], "blocks.0.attn.pattern")
    assert near(shown["to"], acts["blocks.0.attn.pattern"][0, 0, 0])
    expect(vit.panel("images").get_by_role("status")).to_contain_text("china.jpg")
    expect(vit.tab.get_by_label("Model", exact=True)).to_have_value("small-vit")
    expect(vit.tab).to_have_url(f"{vit.url}?model=small-vit&image=0&view=attention")
    expect(vit.tab.get_by_role("slider", name="Training step")).to_have_count(0)
    vit.over(vit.panel("attention").locator(".pz-map").first, column=3, row=5, grid=14)
    assert near(
        vit.state("attention", f"s.token === {1 + 5 * 14 + 3}")["to"],
        acts["blocks.0.attn.pattern"][0, 0, 1 + 5 * 14 + 3],
    )


def test_the_lens_of_a_vit_has_its_labels(vit: App, vit_folder: Path) -> None:
    shown = vit.open("?view=lens&image=4").state("lens")
    subject = Pretrained(str(vit_folder))
    x = subject.example(4).x[None]
    assert near(shown["readout"], logit_lens(subject.final.model, x).readout[0].softmax(-1))
    expect(vit.panel("lens").get_by_role("status")).to_contain_text(f"The model answers {ANIMALS[shown['answer']]} (")
    expect(vit.panel("lens").get_by_label("Class on the maps").locator("option")).to_have_text(ANIMALS)


def test_a_view_that_a_model_cannot_have_says_why_and_the_others_work(browser: Browser, tmp_path: Path) -> None:
    transform = {"size": [32, 32], "mean": [0.5] * 3, "std": [0.5] * 3}
    bare = model_of("no_head", torch.float32, image_size=32, patch_size=8, channels=3)
    write_checkpoint(tmp_path / "bare", bare, transform=transform)
    with served(None, tmp_path / "bare") as url, visit(browser, url) as app:
        app.open("?view=lens")
        refused = app.panel("lens").get_by_text("A logit lens needs a model with classes; found n_classes=0.")
        expect(refused).to_be_visible(timeout=WAIT)
        expect(app.panel("lens").locator(".pz-root")).to_be_hidden()
        app.tab.get_by_role("tab", name="Attention").click()
        app.state("attention")
        app.tab.get_by_role("tab", name="Patching").click()
        app.state("patching")
        expect(app.panel("patching").get_by_text("logit (feature").first).to_be_visible()


def test_an_upload_and_a_drawing_of_any_size(vit: App, vit_folder: Path, tmp_path: Path) -> None:
    first = vit.open().state("attention")
    Image.effect_noise((400, 300), 90).convert("RGB").save(tmp_path / "noise.png")
    vit.tab.locator("#pz-upload").locator("xpath=..").locator("input[type=file]").set_input_files(
        tmp_path / "noise.png"
    )
    expect(vit.panel("images").get_by_role("status")).to_have_text("Your image", timeout=WAIT)
    shown = vit.state("attention", f"s.to[5] !== {first['to'][5]}")
    subject = Pretrained(str(vit_folder))
    _, acts = prisma.record(
        subject.final.model, subject.upload(tmp_path / "noise.png").x[None], "blocks.0.attn.pattern"
    )
    assert near(shown["to"], acts["blocks.0.attn.pattern"][0, 0, 0])
    box = vit.panel("images").locator(".pz-pad").bounding_box()
    assert box is not None
    vit.tab.mouse.move(box["x"] + 45, box["y"] + 8)
    vit.tab.mouse.down()
    vit.tab.mouse.move(box["x"] + 45, box["y"] + 85, steps=4)
    vit.tab.mouse.up()
    expect(vit.panel("images").get_by_role("status")).to_have_text("Your drawing", timeout=WAIT)


def test_the_lens_of_a_clip_is_in_the_space_of_the_prompts(clip: App, clip_folder: Path) -> None:
    shown = clip.open("?view=lens").state("lens")
    loaded = prisma.load(clip_folder)
    assert loaded.text is not None
    x = Pretrained(str(clip_folder)).example(0).x[None]
    similarity = loaded.text.similarity(loaded.model(x), PROMPTS)[0]
    assert near(shown["logits"], similarity, 1e-5)
    assert near(shown["readout"][-1], similarity.softmax(-1), 1e-5)
    expect(clip.panel("lens").get_by_role("status")).to_contain_text(
        f"The model answers {PROMPTS[int(torch.argmax(similarity))]} ("
    )
    expect(clip.panel("lens").locator(".pz-card").first.locator(".pz-name").first).to_have_text(
        PROMPTS[shown["readout"][0].index(max(shown["readout"][0]))]
    )


def test_a_clip_is_patched_between_prompts(clip: App) -> None:
    shown = clip.open("?view=patching").state("patching")
    assert len(shown["heads"]) == 2
    expect(clip.panel("patching").get_by_text("logit (").first).to_contain_text(" - logit (")


@pytest.mark.parametrize("view", ["attention", "lens"])
def test_narrow(vit: App, view: str) -> None:
    vit.tab.set_viewport_size({"width": 390, "height": 844})
    vit.open(f"?view={view}").state(view)
    assert vit.tab.evaluate("document.documentElement.scrollWidth") == 390
