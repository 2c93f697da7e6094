"""Head similarity: which heads do the same, by the keys that they attend to or by what they write.

    cosine          <A_i, A_j> / (|A_i| |A_j|), patterns as vectors over all images, queries and keys
    jensen_shannon  1 - JS(A_i, A_j) / ln 2, mean over images and queries: 1: the same, 0: no key in common
    cka             HSIC(K_i, K_j) / sqrt(HSIC(K_i, K_i) HSIC(K_j, K_j)), K: products of a head's outputs at two tokens

CKA is the linear, unbiased one, on the heads' outputs z W_O: numerator and denominators are means over images, and the
samples are the tokens of an image. Unbiased values may lie a little below 0.

Sources: Kornblith et al. 1905.00414 (CKA); Nguyen et al. 2010.15327 (means over batches); Song et al. 2012 (unbiased
HSIC); Clark et al. 1906.04341 (heads by Jensen-Shannon).

Shapes: B image, L layer, H head, A = L * H all heads, T token, Q query, K key, D d_head.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from prisma.analysis.attention.token_grid import attention_scopes, image_passes
from prisma.analysis.result import Result
from prisma.attention import Attention
from prisma.errors import PrismaError
from prisma.plain import expect_plain
from prisma.runs import record
from prisma.view.figures.head_pairs import draw_similarity
from prisma.vit import ViT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CACHED = 2**18  # about as many numbers as fit in a processor's cache


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadSimilarity(Result):
    """Which heads do the same: near 1 are two heads that are interchangeable, near 0 two with nothing in common.

    Head `h` of layer `l` is row and column `l * heads + h`, with `metadata["heads"]` heads in a layer.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "similarity": ("head", "other_head"),
        "products": ("image", "head", "other_head"),
    }
    products: Tensor  # of two heads in one image; `similarity` is their mean, scaled to be 1 on the diagonal

    @property
    def similarity(self) -> Tensor:
        """[head, other_head], over all images; 1 on the diagonal."""
        mean_AA = self.products.mean(0)
        length_A = mean_AA.diagonal().sqrt()
        return mean_AA / (length_A[:, None] * length_A)

    def plot(self, array: str | None = None) -> "Figure":
        """By default the matrix of all heads with all heads, with lines between layers."""
        if array not in (None, "similarity"):
            return super().plot(array)
        title = str(self.metadata["analysis"]).replace("_", " ") + f" ({self.metadata['measure'].replace('_', ' ')})"
        return draw_similarity(self.arrays["similarity"], self.metadata["heads"], title=title)


@torch.no_grad()
def head_similarity(
    model: ViT, images: Tensor, *, measure: str = "jensen_shannon", attention: str = "attn", batch: int | None = None
) -> HeadSimilarity:
    """Which heads do the same: are they redundant, or is each one different?

    `.similarity` has a number for each pair of heads: 1 is the same behaviour, 0 is nothing in common. Compare patterns
    (`"jensen_shannon"`, `"cosine"`) to see which heads attend to the same keys, and outputs (`"cka"`) to see which
    heads write the same up to a rotation and a factor.

    Args:
        images: [image, channel, (frame,) height, width].
        measure: `"jensen_shannon"` or `"cosine"`, of patterns; `"cka"`, of outputs.
        attention: `"attn"`; in a model with divided attention also `"time"`.
        batch: images in one pass; by default as many as have patterns of about 256 MiB.

    Returns:
        `similarity` [head, other_head] and `products` [image, head, other_head]; a head is a number from 0 to
        layers * heads - 1. Neither has a unit.

    Raises:
        PrismaError: no such measure or attention, fewer than 4 tokens for CKA, or the images do not fit the model.

    Sources: Kornblith et al. 1905.00414 (CKA); Clark et al. 1906.04341 (Jensen-Shannon).
    """
    if measure not in MEASURES:
        raise PrismaError(f"expected measure to be one of {', '.join(MEASURES)}; found {measure!r}")
    if attention not in ("attn", "time"):
        raise PrismaError(f"expected attention to be attn or time; found {attention!r}")
    scopes = attention_scopes(model.config, attention)
    matrices, products = MEASURES[measure]
    parts: list[Tensor] = []
    for some in image_passes(model, images, batch):
        _, acts = record(
            model, some, [f"{scope}.{'z' if measure == 'cka' else 'pattern'}" for scope in scopes], stop=True
        )
        of_heads = torch.cat([matrices(model, scope, x) for scope, x in zip(scopes, acts.values(), strict=True)], dim=1)
        parts += [products(of_image)[None] for of_image in of_heads]
    metadata = {
        "analysis": "head_similarity",
        "measure": measure,
        "attention": attention,
        "heads": model.config.n_heads,
    }
    return HeadSimilarity(metadata=metadata, products=torch.cat(parts))


def _pattern(model: ViT, scope: str, pattern_BHQK: Tensor) -> Tensor:
    return pattern_BHQK


def _gram(model: ViT, scope: str, z_BTHD: Tensor) -> Tensor:
    """Products of a head's outputs at two tokens, [image, head, token, token]: z W_O W_O^T z^T."""
    attention = model.get_submodule(scope)
    expect_plain(model, ["", scope, f"{scope}.ln", f"{scope}.out"], "what single heads write")
    assert isinstance(attention, Attention)
    if attention.ln is not None:
        z_BTHD = attention.ln(z_BTHD.flatten(2)).unflatten(2, z_BTHD.shape[2:])
    out_HDM = attention.out.weight.T.unflatten(0, z_BTHD.shape[2:])
    z_BHTD = z_BTHD.transpose(1, 2)
    gram_BHTT = z_BHTD @ (out_HDM @ out_HDM.mT) @ z_BHTD.mT
    return gram_BHTT.to(torch.promote_types(gram_BHTT.dtype, torch.float32))


def _inner(pattern_AQK: Tensor) -> Tensor:
    flat = pattern_AQK.flatten(1)
    return flat @ flat.T


def _jensen_shannon(pattern_AQK: Tensor) -> Tensor:
    """1 - JS / ln 2, mean over queries; JS is the entropy of the mixture minus the mean entropy."""
    some = max(CACHED // pattern_AQK[0].numel(), 1)  # pairs at once: ten times as fast as all pairs of a head at once
    entropy_A = torch.cat([_entropy(part) for part in pattern_AQK.split(some)])
    divergence_AA = pattern_AQK.new_zeros(len(entropy_A), len(entropy_A))
    for i, pattern_QK in enumerate(pattern_AQK):
        mixture_A = torch.cat([_entropy((pattern_QK + part) / 2) for part in pattern_AQK[i:].split(some)])
        divergence_AA[i, i:] = mixture_A - (entropy_A[i] + entropy_A[i:]) / 2
    return 1 - (divergence_AA + divergence_AA.triu(1).T) / math.log(2)


def _entropy(pattern_AQK: Tensor) -> Tensor:
    """In nats, mean over queries."""
    log = pattern_AQK.clamp(min=torch.finfo(pattern_AQK.dtype).tiny).log()
    return -(pattern_AQK * log).sum((-1, -2)) / pattern_AQK.shape[-2]


def _hsic(gram_ATT: Tensor) -> Tensor:
    """The unbiased estimate of HSIC of all pairs (Song et al. 2012, equation 5): kernels without their diagonals."""
    n = gram_ATT.shape[-1]
    if n < 4:
        raise PrismaError(f"unbiased CKA needs at least 4 tokens; found {n}")
    gram_ATT = gram_ATT * (1 - torch.eye(n, dtype=gram_ATT.dtype, device=gram_ATT.device))
    row_AT, flat = gram_ATT.sum(-1), gram_ATT.flatten(1)
    total_A = row_AT.sum(-1)
    cross_AA = total_A[:, None] * total_A / ((n - 1) * (n - 2)) - 2 / (n - 2) * row_AT @ row_AT.T
    return (flat @ flat.T + cross_AA) / (n * (n - 3))


MEASURES: Mapping[str, tuple[Callable[[ViT, str, Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "jensen_shannon": (_pattern, _jensen_shannon),
    "cosine": (_pattern, _inner),
    "cka": (_gram, _hsic),
}
"""Measure -> (a matrix for each head [image, head, ., .]; the products of all pairs of these matrices in one image)."""
