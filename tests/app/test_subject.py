"""What every subject shares: examples by index, pictures from outside, names of logits and tokens."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from prisma_app.models import Mouse
from prisma_app.subject import INK, expect_still_images, pixels, prefix_names, transform_of

from prisma import Loaded, PrismaError
from prisma.repository import Published
from tests.app.conftest import DIGITS
from tests.variants import model_of


@pytest.fixture
def mouse(lab: Path) -> Mouse:
    return Mouse(Published(DIGITS, lab))


@pytest.mark.parametrize("index", [-1, 10_000, 0.5, True, None, {}])
def test_an_example_that_is_not_there(mouse: Mouse, index: Any) -> None:
    with pytest.raises(PrismaError, match="expected an example from 0 to"):
        mouse.example(index)


def test_an_upload_is_what_the_transform_makes_of_it(mouse: Mouse, tmp_path: Path) -> None:
    Image.effect_noise((40, 30), 90).convert("RGBA").save(tmp_path / "a.png")
    transform = mouse.final.transform
    assert transform is not None
    assert torch.equal(mouse.upload(tmp_path / "a.png").x, transform(tmp_path / "a.png"))


def test_uploads_that_are_no_images(mouse: Mouse, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    Image.new("1", (8000, 8000)).save(tmp_path / "huge.png")
    for name, sentence in (("text.png", "expected an image"), ("huge.png", "40,000,000 pixels; found 8,000 x 8,000")):
        with pytest.raises(PrismaError, match=sentence):
            mouse.upload(tmp_path / name)


def test_a_drawing_is_white_ink_on_black(mouse: Mouse) -> None:
    ink = np.zeros((INK, INK), dtype=np.uint8)
    ink[:, INK // 2 :] = 255
    drawn = mouse.drawing(base64.b64encode(ink.tobytes()).decode())
    shown = np.asarray(pixels(mouse.final, drawn.x[None]).shape)
    assert shown.tolist() == [1, 8, 8, 1]
    assert drawn.x[0, :, -1].min() > drawn.x[0, :, 0].max()


@pytest.mark.parametrize("ink", [None, 3, "", "!!", base64.b64encode(b"12").decode(), "A" * 10**6])
def test_a_drawing_of_another_size(mouse: Mouse, ink: Any) -> None:
    with pytest.raises(PrismaError, match=f"expected a drawing of {INK} x {INK} bytes"):
        mouse.drawing(ink)


def test_prefix_tokens_have_names(mouse: Mouse) -> None:
    assert prefix_names(mouse.final) == ["class token"]


def test_models_that_the_app_does_not_show() -> None:
    with pytest.raises(PrismaError, match="still images; found a video model with 4 frames"):
        expect_still_images(Loaded(model_of("video"), None, ()))
    with pytest.raises(PrismaError, match="do not specify a preprocessing that Prisma can reproduce"):
        transform_of(Loaded(model_of("base"), None, ()))


@pytest.mark.parametrize(
    ("variant", "names", "expected"),
    [
        ("base", ("a", "b"), ["a", "b", "class 2", "class 3", "class 4"]),
        ("no_head", (), [f"feature {i}" for i in range(12)]),
        ("no_head_class_mean", (), [f"feature {i}" for i in range(24)]),
    ],
)
def test_every_logit_has_a_name(
    mouse: Mouse, variant: str, names: tuple[str, ...], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(variant)
    monkeypatch.setattr(Mouse, "final", Loaded(model, None, names))
    assert mouse.labels == expected
    assert model(torch.zeros(1, *model.config.input_shape).double()).shape == (1, len(expected))
