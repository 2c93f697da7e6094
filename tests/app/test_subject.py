"""What every model of the app shares: checkpoints by step, names of logits and tokens, which models are shown."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from prisma_app.library import Scene
from prisma_app.pictures import transform_of
from prisma_app.subject import expect_still_images, prefix_names

from prisma import Loaded, PrismaError
from prisma.repository import Published
from tests.app.conftest import DIGITS, GLYPHS, HOSTILE
from tests.app.unpack import assert_near, read
from tests.variants import model_of


def test_the_last_checkpoint_is_the_default(scene: Callable[..., Scene]) -> None:
    subject = scene(model=DIGITS).subject
    assert subject.at(None) is subject.at(40)
    with pytest.raises(PrismaError, match="publishes 8 training steps"):
        subject.at(-1)


def test_prefix_tokens_and_logits_have_names(scene: Callable[..., Scene]) -> None:
    subject = scene(model=GLYPHS).subject
    assert prefix_names(subject.final) == ["class token"]
    assert HOSTILE in subject.labels


def test_images_are_shown_as_they_were(scene: Callable[..., Scene], lab: Path) -> None:
    from prisma.view.browser import View

    subject = scene(model=DIGITS).subject
    shown = read(View({}, {"a": subject.shown(torch.stack([e.x for e in subject.examples()]))}), "a")
    assert_near(shown / 255, Published(DIGITS, lab).probe()[0][:20].permute(0, 2, 3, 1), 1 / 500)


def test_models_that_the_app_does_not_show() -> None:
    with pytest.raises(PrismaError, match="still images; found a video model with 4 frames"):
        expect_still_images(Loaded(model_of("video"), None, ()))
    with pytest.raises(PrismaError, match="do not specify a preprocessing that Prisma can reproduce"):
        transform_of(Loaded(model_of("base"), None, ()))
