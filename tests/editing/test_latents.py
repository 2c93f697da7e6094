"""Latents of one class in the place of another's: the formula, at the class token alone, and where it reaches."""

import pytest
import torch

from prisma.editing.latents import latent_swap
from prisma.editing.measuring import measure_edit
from prisma.editing.request import Request
from prisma.errors import PrismaError
from prisma.runs import record
from prisma.sparse.coders import Coder, CoderConfig, drawn

SITE = "blocks.1.resid_post"


def by_classes(digits) -> Coder:
    """A coder with a latent for each digit, active where a linear readout of the class token says so."""
    x = record(digits.loaded.model, digits.images, SITE)[1][SITE][:, 0]
    wanted = torch.nn.functional.one_hot(digits.labels, 10).float()
    centred = x - x.mean(0)
    W = torch.linalg.lstsq(torch.cat([centred, torch.ones(len(x), 1)], 1), wanted).solution
    coder = Coder(CoderConfig("topk", 64, 10, 1, (SITE,), (64,))).requires_grad_(False)
    coder.W_enc.copy_(W[:64])
    coder.b_enc.copy_(W[64])
    coder.b_dec.copy_(x.mean(0))
    means = torch.stack([centred[digits.labels == c].mean(0) for c in range(10)])
    coder.W_dec.copy_(
        means / torch.stack([(coder.encode(x)[digits.labels == c]).mean(0)[c] for c in range(10)])[:, None]
    )
    return coder


def test_a_class_is_called_by_another_name_and_others_are_not(digits) -> None:
    edits = latent_swap(Request.of(*digits.train, 3, 8), by_classes(digits), latents=1)
    assert list(edits) == [SITE]
    found = measure_edit(digits.loaded.model, edits, digits.test_images, digits.test_labels, 3, 8)
    assert found.generalisation.value > 0.8 and found.locality.value > 0.95


def test_equals_its_formula_at_the_class_token_alone(digits) -> None:
    asked = Request.of(*digits.train, 3, 8, keys=6)
    coder = drawn(CoderConfig("topk", 64, 24, 4, (SITE,), (64,)))
    edit = latent_swap(asked, coder, latents=2)[SITE]

    def code(images: torch.Tensor) -> torch.Tensor:
        return coder.encode(record(digits.loaded.model, images, SITE)[1][SITE][:, 0])

    with torch.no_grad():
        own, theirs, old = (code(x).mean(0) for x in (asked.own().images, asked.theirs(), digits.images))
        a, b = torch.zeros(24), torch.zeros(24)
        for mean, kept in ((own, a), (theirs, b)):
            for j in (mean - old).topk(2).indices.tolist():
                kept[j] = mean[j]
        x = record(digits.loaded.model, digits.test_images[:5], SITE)[1][SITE]
        share = coder.encode(x[:, 0]) @ a / a.square().sum()
        expected = x.clone()
        expected[:, 0] += share[:, None] * (coder.decode(b) - coder.decode(a))
        found = edit(x, ("batch", "token", "d_model"))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(found[:, 1:], x[:, 1:]) and not torch.equal(found[:, 0], x[:, 0])


def test_what_cannot_be_swapped_is_said(digits) -> None:
    asked, coder = Request.of(*digits.train, 3, 8, keys=2), drawn(CoderConfig("topk", 64, 24, 4, (SITE,), (64,)))
    with pytest.raises(PrismaError, match="from 1 to 24 latents; found 25"):
        latent_swap(asked, coder, latents=25)
    with torch.no_grad():
        coder.W_enc.zero_()
    with pytest.raises(PrismaError, match="latents that are active on images of class 3; found none"):
        latent_swap(asked, coder)
