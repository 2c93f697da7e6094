"""Coders at sites of a model, and the planted ones of the tests of latents."""

import pytest
import torch
from torch import Tensor

import prisma
from prisma.errors import PrismaError
from prisma.sparse.coders import Coder, CoderConfig
from prisma.sparse.latent_nodes import Nodes, places_of
from tests.planted_circuits import ANSWER, GLYPHS, OWN, PLACE, copy_head
from tests.planted_circuits import images as glyphs
from tests.sparse.test_coders import random_coder
from tests.variants import images_of, model_of

FIRST, SECOND = "blocks.0.resid_post", "blocks.1.resid_mid"


def random_pair(
    variant: str = "base", sites: tuple[str, ...] = (FIRST, SECOND)
) -> tuple[prisma.ViT, Tensor, Tensor, list[Coder]]:
    """A random model in float64, pairs of images, and a random coder of each site: topk, then jumprelu."""
    model = model_of(variant, torch.float64)
    clean, corrupt = images_of(model, 3), images_of(model, 6)[3:]
    acts = prisma.record(model, clean, sites)[1]
    widths = [acts[site].flatten(2).shape[-1] if acts[site].ndim > 2 else acts[site].shape[-1] for site in sites]
    kinds = ("topk", "jumprelu")
    coders = [
        random_coder(kinds[i % 2], width, 9, 3, i, sites=(site,))
        for i, (width, site) in enumerate(zip(widths, sites, strict=True))
    ]
    return model, clean, corrupt, coders


def transcoder() -> Coder:
    """A random transcoder of the second MLP."""
    reads, writes = "blocks.1.ln2.normalized", "blocks.1.mlp_out"
    return random_coder("jumprelu", 12, 9, 3, 5, sites=(reads,), target=writes, d_out=12, skip=True, centred=False)


def planted() -> tuple[prisma.ViT, Tensor, Tensor, Coder, Coder]:
    """A head that copies glyphs to the answer; pairs that differ in one glyph, 1 instead of 0; and a coder before and
    one after it, whose latent g is glyph g: at its own patch, and in the answer. What is left are places, the error."""
    model = copy_head()
    clean, corrupt = glyphs([0, 2, 1, 3, 0], [2, 0, 3, 1, 0]), glyphs([1, 2, 1, 3, 0], [2, 1, 3, 1, 0])
    found = []
    for site, part in (("blocks.0.resid_pre", OWN), ("blocks.0.resid_post", ANSWER)):
        coder = Coder(CoderConfig("standard", PLACE.stop, GLYPHS, None, (site,))).double().requires_grad_(False)
        coder.W_dec[:, part] = torch.eye(GLYPHS, dtype=torch.float64)
        coder.W_enc.copy_(coder.W_dec.T)
        found.append(coder)
    return model, clean, corrupt, found[0], found[1]


def test_nodes_are_latents_and_errors_in_the_order_of_the_model() -> None:
    model, clean, _, (first, second) = random_pair()
    nodes = Nodes.of(model, [second, first])
    assert nodes.sites == nodes.reads == (FIRST, SECOND)
    assert nodes.places.tolist() == [[i, j] for i in (0, 1) for j in (*range(9), -1)]
    assert places_of(nodes, [(SECOND, None), (FIRST, 4)]).tolist() == [[1, -1], [0, 4]]
    _, acts, codes = nodes.record(model, clean)
    for site, code in codes.items():
        coder = nodes.coders[site]
        assert torch.equal(code.z, coder.encode(acts[site]))
        assert torch.allclose(code.z @ coder.W_dec + coder.b_dec + code.error, acts[site], atol=1e-12)


def test_a_transcoder_has_its_nodes_where_it_writes() -> None:
    model, clean, _, _ = random_pair()
    reads, writes = "blocks.0.ln2.normalized", "blocks.0.mlp_out"
    coder = random_coder("topk", 12, 9, 3, 0, sites=(reads,), target=writes, d_out=12, skip=True, centred=False)
    nodes = Nodes.of(model, coder)
    assert nodes.sites == (writes,) and nodes.reads == (reads, writes)
    _, acts, codes = nodes.record(model, clean)
    error = acts[writes] - coder.decode(coder.encode(acts[reads]))  # with what the skip writes
    assert torch.allclose(codes[writes].error, error, atol=1e-12)


def test_coders_that_do_not_fit_are_refused() -> None:
    model, _, _, (first, _) = random_pair()
    for given, message in (
        ([], r"expected sparse coders; found \[\]"),
        ([3], r"expected sparse coders; found \['int'\]"),
        ([first, first], f"expected one coder for each site; found two of {FIRST}"),
        (random_coder("topk", 6, 9, 3, 0, sites=("a", "b"), widths=(2, 4)), "found a crosscoder"),
        (random_coder("topk", 12, 9, 3, 0, sites=("blocks.7.resid_post",)), "no site of this model matches"),
    ):
        with pytest.raises(PrismaError, match=message):
            Nodes.of(model, given)  # type: ignore[arg-type]
    assert Nodes.of(model, {SECOND: first}).sites == (SECOND,)
    with pytest.raises(PrismaError, match=rf"expected tokens of {FIRST}, from 0 to 9; found \[10\]"):
        Nodes.of(model, first, [10])
    with pytest.raises(PrismaError, match="expected a site with tokens, of which some are chosen; found pooled"):
        Nodes.of(model, random_coder("topk", 12, 9, 3, 0, sites=("pooled",)), [0])
    with pytest.raises(PrismaError, match=rf"expected latents, or None, of {FIRST}; found \('{FIRST}', 9\)"):
        places_of(Nodes.of(model, first), [(FIRST, 9)])
    with pytest.raises(PrismaError, match="expected at least one node"):
        places_of(Nodes.of(model, first), [])
