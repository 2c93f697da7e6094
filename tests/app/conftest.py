"""Two published mice for the app, small but trained; a session on one; two pretrained models; a browser."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import open_clip
import pytest
import timm
from playwright.sync_api import Browser, sync_playwright
from prisma_app.library import Library, Scene, library_of
from prisma_app.state import State
from safetensors.torch import save_file
from timm.models import save_for_hf
from typer.testing import CliRunner

from prisma.cli import serving
from prisma.pretrained.parity import randomise
from prisma.publish import publish
from prisma.recipes import recipe
from prisma.repository import Published
from prisma.train import train
from tests.app.plain import plainly_served
from tests.app.visitor import CHROMIUM, App, closed_loops, served, visit
from tests.conftest import made_once

DIGITS, GLYPHS = "lab/digits", "lab/glyphs"
HOSTILE = "<img src=x onerror='window.harmed=1'>${window.harmed=1}{{window.harmed=1}}"
ANIMALS = ["cat", "dog", "newt", "owl", "elk"]
SMALL = {"steps": "40", "warmup": "4", "d_model": "32"}


@pytest.fixture(scope="package")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder hub that serves a digits mouse, and an attention-only mouse of another task with a hostile label."""
    return made_once(tmp_path_factory, "lab", _make_lab) / "hub"


def _make_lab(folder: Path) -> None:
    hub = folder / "hub"
    for name, repo in (("digits", DIGITS), ("induction", GLYPHS)):
        run = folder / "runs" / name
        train(recipe(name).override(SMALL), run, command=f"prisma train {name}", progress=False)
        publish(run, repo, hub, progress=False)
    config = Published(GLYPHS, hub).file("config.json")
    renamed = config.read_text().replace('"vertical, same"', json.dumps(HOSTILE))
    config.unlink()  # a link to its blob
    config.write_text(renamed)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium, else Playwright's own; an error, never a skip, if there is neither."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield chromium
        chromium.close()


@pytest.fixture(scope="package")
def vit_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ViT of 224 pixels with random weights, as timm saves it."""
    folder = tmp_path_factory.mktemp("timm") / "small-vit"
    shape = {"depth": 2, "embed_dim": 48, "num_heads": 3}
    module = timm.create_model("vit_base_patch16_224", num_classes=len(ANIMALS), **shape)
    randomise(module)
    more = {"model_config": {"label_names": ANIMALS}, "model_args": shape}
    save_for_hf(module, str(folder), safe_serialization=True, **more)
    return folder


@pytest.fixture(scope="package")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CLIP with random weights, as open_clip saves it."""
    folder = tmp_path_factory.mktemp("open_clip") / "small-clip"
    folder.mkdir()
    vision = {"layers": 2, "width": 48, "head_width": 16, "patch_size": 16, "image_size": 64}
    config: dict[str, Any] = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": {"layers": 1, "width": 32, "heads": 2}}
    module = open_clip.CLIP(**config)
    randomise(module)
    save_file(module.state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    return folder


@pytest.fixture(name="closed_loops")
def _closed_loops() -> Iterator[None]:
    with closed_loops():
        yield


@pytest.fixture(scope="package", autouse=True)
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where Gradio keeps uploads, of every app that this process serves."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        yield


@pytest.fixture(scope="package")
def library(lab: Path) -> Library:
    """The two mice, digits first."""
    return library_of(lab, DIGITS, ())


@pytest.fixture(scope="package")
def vit_library(vit_folder: Path) -> Library:
    """The small ViT of 224 pixels."""
    return library_of(None, str(vit_folder), ())


@pytest.fixture(scope="package")
def clip_library(clip_folder: Path) -> Library:
    """The small CLIP."""
    return library_of(None, str(clip_folder), ())


@pytest.fixture(scope="package")
def scene(library: Library) -> Callable[..., Scene]:
    """From the keys of an address to what they name."""
    return lambda **keys: library.scene(State.of(keys))


@pytest.fixture(scope="package")
def url(lab: Path) -> Iterator[str]:
    """The address of the app over the two mice."""
    with served(lab, DIGITS) as address:
        yield address


@pytest.fixture(scope="package")
def vit_url(vit_library: Library) -> Iterator[str]:
    """The same over the small ViT of 224 pixels, without Gradio."""
    with plainly_served(vit_library) as address:
        yield address


@pytest.fixture(scope="package")
def clip_url(clip_folder: Path) -> Iterator[str]:
    """The app over the small CLIP, as `prisma app --prompts` asks for it."""
    with patch.object(serving, "serve") as serve:
        CliRunner().invoke(serving.cli, ["--model", str(clip_folder), "--prompts", "a cat,  two dogs"])
    hub, model, _, prompts = serve.call_args.args
    with served(hub, model, prompts) as address:
        yield address


@pytest.fixture(scope="package")
def plain_url(library: Library) -> Iterator[str]:
    """The same without Gradio around it, which a browser opens in a fraction of the time."""
    with plainly_served(library) as address:
        yield address


@pytest.fixture
def app(browser: Browser, url: str) -> Iterator[App]:
    """A visitor of the two mice."""
    with visit(browser, url) as visitor:
        yield visitor


@pytest.fixture
def plain(browser: Browser, plain_url: str) -> Iterator[App]:
    """A visitor of the same without Gradio, for what Gradio has no part in."""
    with visit(browser, plain_url) as visitor:
        yield visitor
