"""The files of a dashboard: the numbers of the latents, the images that they have, and no string that is HTML.

What a browser makes of them is in tests/app/test_browser_dashboard.py.
"""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from prisma.analysis.clip_dissect import Proposal
from prisma.data.transform import Transform
from prisma.errors import PrismaError
from prisma.sparse.coders import Coder
from prisma.sparse.dashboard import PART, dashboard
from prisma.sparse.latents import Latents, latents
from tests.app.unpack import unpack
from tests.sparse.test_coders import random_coder
from tests.variants import images_of, model_of

M, LABELS = 70, ["ant", "bee", "cat", "dog", "<b>"]


def transform(side: int) -> Transform:
    return Transform((side, side), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a script of the dashboard hands over."""
    text = path.read_text().strip().removeprefix("PRISMA_PACK(").removesuffix(");")
    return unpack(base64.b64decode(json.loads(f"[{text}]")[1]))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Latents, Coder, Tensor]:
    model = model_of("base", torch.float32, channels=3)
    images = images_of(model, 6)
    coder = random_coder("topk", 12, M, 3, 1, sites=("blocks.0.resid_post",)).float()
    coder.b_enc[:5] = -1e4
    coder.metadata["training"] = {"fvu": 0.25, "tokens": "all"}
    found = latents(coder, model, images, top=4, effect_images=2)
    out = tmp_path_factory.mktemp("shown") / "dashboard"
    names = {7: Proposal("</script> stripes", "CLIP-Dissect", 0.5)}
    page = dashboard(found, coder, images, transform(6), out, title="A <b>coder</b>", labels=LABELS, names=names)
    assert page == out / "index.html"
    return out, found, coder, images


def test_the_numbers_are_those_of_the_latents(made: tuple[Path, Latents, Coder, Tensor]) -> None:
    folder, found, _, _ = made
    assert found.effect is not None and found.classes is not None
    facts, arrays = read(folder / "data/latents.js")
    assert (facts["width"], facts["grid"], facts["prefixes"], facts["outputs"]) == (M, [3, 3], ["class"], LABELS)
    assert (facts["what"], facts["on"], facts["names"]) == ("logits", 2, [[7, "</script> stripes", "CLIP-Dissect"]])
    assert ["training: fvu", "0.25"] in facts["about"]
    for name, wanted in {
        "density": found.density, "effect": found.effect.abs().amax(1), "output": found.effect.abs().argmax(1),
        "class": found.classes.argmax(1), "image": found.image[:, 0], "strength": found.strength[:, 0],
    }.items():  # fmt: skip
        assert torch.allclose(arrays[name].double(), wanted.double(), atol=1e-6), name
    for part in range(-(-M // PART)):
        facts, arrays = read(folder / f"data/part-{part}.js")
        rows = slice(part * PART, min((part + 1) * PART, M))
        shares = found.maps[rows].abs() / found.strength[rows].clamp_min(1e-9)[..., None]
        assert (arrays["maps"] / 255 - shares).abs().max() <= 0.5 / 255 + 1e-6
        assert torch.equal(arrays["histogram"], found.histogram[rows])
        for j, latent in zip(range(M)[rows], facts["latents"], strict=True):
            assert len(latent["captions"]) == int((found.image[j] >= 0).sum())
            effects = dict(latent["effects"])
            for label, value in effects.items():
                assert value == pytest.approx(found.effect[j, LABELS.index(label)].item(), rel=1e-3)
            assert len(effects) == (0 if found.dead[j] else 5)
            assert [k for k, _ in latent["near"]] == found.near[j].tolist()


def test_images_are_those_that_latents_have(made: tuple[Path, Latents, Coder, Tensor]) -> None:
    folder, found, _, images = made
    used = {int(i) for i in found.image.unique() if i >= 0}
    assert {path.name for path in (folder / "images").iterdir()} == {f"{i}.png" for i in used}
    first = min(used)
    with Image.open(folder / f"images/{first}.png") as picture:
        pixels = np.asarray(picture)
    wanted = (transform(6).pixels(images[first]).clamp(0, 1) * 255).round().permute(1, 2, 0)
    assert np.array_equal(pixels, wanted.numpy().astype(np.uint8)), "small images are exact"


def test_strings_of_strangers_are_no_html(made: tuple[Path, Latents, Coder, Tensor]) -> None:
    page = (made[0] / "index.html").read_text()
    assert "A &lt;b&gt;coder&lt;/b&gt;</title>" in page and "stripes" not in page
    for path in made[0].rglob("*.*"):
        if path.suffix in (".js", ".css", ".html"):
            assert b"http://" not in path.read_bytes() and b"https://" not in path.read_bytes(), path


def test_what_cannot_be_shown_is_refused(made: tuple[Path, Latents, Coder, Tensor], tmp_path: Path) -> None:
    folder, found, coder, images = made
    with pytest.raises(PrismaError, match="expected a new or empty folder"):
        dashboard(found, coder, images, transform(6), folder)
    other = random_coder("topk", 12, 8, 3, 1).float()
    with pytest.raises(PrismaError, match="expected the latents of this coder, 8; found 70"):
        dashboard(found, other, images, transform(6), tmp_path / "new")
    video = model_of("base", torch.float32, frames=4, tubelet=2)
    moving = latents(coder, video, images_of(video, 2), effect_images=0)
    with pytest.raises(PrismaError, match=r"expected a coder of still images .*; found one of video"):
        dashboard(moving, coder, images_of(video, 2), transform(6), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_large_picture_is_made_smaller(tmp_path: Path) -> None:
    model = model_of("base", torch.float32, image_size=320, patch_size=160, channels=3)
    images = torch.rand(1, 3, 320, 320)
    coder = random_coder("topk", 12, 4, 2, 1, sites=("blocks.0.resid_post",)).float()
    dashboard(latents(coder, model, images, effect_images=0), coder, images, transform(320), tmp_path / "d")
    with Image.open(tmp_path / "d/images/0.jpg") as picture:
        assert picture.size == (160, 160)
    assert not read(tmp_path / "d/data/latents.js")[0]["effects"]
