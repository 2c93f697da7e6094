"""Random changes keep the size, are the same for every target, and are what they say."""

import pytest
import torch
import torch.nn.functional as F

from prisma.errors import PrismaError
from prisma.features.robustness import PLAIN, Robustness

EVERYTHING = Robustness(color=0.5, offset=0.3, noise=0.1, ensemble=3)


def changed(
    changes: Robustness, pixels: torch.Tensor, copies: int = 1, share: float = 0.0, seed: int = 0
) -> torch.Tensor:
    return changes(pixels, copies, share, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 7, 12)], ids=str)
def test_the_size_stays_and_targets_get_the_same_changes(shape: tuple[int, ...]) -> None:
    copies = torch.rand(2, *shape)
    found = changed(EVERYTHING, copies.repeat(3, 1, 1, 1), copies=2)
    assert found.shape == (18, *shape)
    versions = found.view(3, 3, 2, *shape)
    assert torch.allclose(versions[:, 0], versions[:, 1]) and torch.allclose(versions[:, 0], versions[:, 2])
    assert not torch.allclose(versions[0], versions[1]) and not torch.equal(versions[0, 0, 0], versions[0, 0, 1])
    alone = changed(EVERYTHING, copies, copies=2).view(3, 2, *shape)
    assert torch.allclose(alone, versions[:, 0], atol=1e-6)


def test_no_change_is_no_change() -> None:
    pixels = torch.rand(2, 3, 5, 6)
    assert torch.equal(changed(PLAIN, pixels), pixels)


def test_a_rotation_of_a_rectangle_is_one() -> None:
    """A bright column, turned by a right angle about the centre, is a row of the same length in pixels."""
    pixels = torch.zeros(1, 1, 5, 9)
    pixels[..., :, 4] = 1
    turn = Robustness(jitter=0, zoom=(1, 1), rotate=90, pad="edge")
    turned = turn._moved(pixels, torch.tensor([[0.0, 0.0, 0.0, 1.0]]))
    wanted = torch.zeros(1, 1, 5, 9)
    wanted[..., 2, 2:7] = 1
    assert torch.allclose(turned[..., 2:7], wanted[..., 2:7], atol=1e-5)


def test_a_jitter_moves_and_a_zoom_enlarges() -> None:
    pixels = torch.rand(1, 2, 8, 8)
    right = Robustness(jitter=0.25, zoom=(1, 1), rotate=0)._moved(pixels, torch.tensor([[1.0, 0, 0, 0]]))
    assert torch.allclose(right[..., :6], pixels[..., 2:], atol=1e-5) and torch.allclose(
        right[..., 6:], torch.tensor(0.5)
    )
    twice = Robustness(jitter=0, zoom=(0.5, 2), rotate=0)._moved(pixels, torch.tensor([[0.0, 0, 1, 0]]))
    assert torch.allclose(twice, F.interpolate(pixels[..., 2:6, 2:6], scale_factor=2, mode="bilinear"), atol=0.5)
    weights = torch.tensor([[0.5625, 0.1875], [0.1875, 0.0625]])
    assert twice[0, 0, 3, 3].item() == pytest.approx((pixels[0, 0, 3:5, 3:5] * weights).sum().item(), abs=1e-5)


def test_an_offset_fades_and_noise_has_its_spread() -> None:
    pixels = torch.full((1, 3, 40, 40), 0.5)
    plain = {"jitter": 0.0, "zoom": (1.0, 1.0), "rotate": 0.0}
    offset = Robustness(offset=1.0, **plain)  # type: ignore[arg-type]
    early, late = changed(offset, pixels), changed(offset, pixels, share=0.75)
    assert torch.allclose(4 * (late - pixels), early - pixels, atol=1e-5) and early.std((2, 3)).max() < 1e-6
    assert changed(offset, pixels, share=1.0).equal(pixels)
    noisy = changed(Robustness(noise=0.1, **plain), pixels)  # type: ignore[arg-type]
    assert (noisy - pixels).std().item() == pytest.approx(0.1, rel=0.05)
    shifted = changed(Robustness(color=1.0, **plain), pixels)  # type: ignore[arg-type]
    assert shifted.std((2, 3)).max() < 1e-6 and shifted.unique().numel() >= 3


@pytest.mark.parametrize(
    "wrong", [{"jitter": -0.1}, {"zoom": (2.0, 1.0)}, {"zoom": (0.0, 1.0)}, {"ensemble": 0}, {"pad": "black"}]
)
def test_impossible_changes_are_refused(wrong: dict) -> None:
    with pytest.raises(PrismaError, match="expected"):
        Robustness(**wrong)
