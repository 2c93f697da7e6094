"""Head similarity: which heads do the same, by the keys that they attend to or by what they write.

    cosine          <A_i, A_j> / (|A_i| |A_j|), patterns as vectors over all images, queries and keys
    jensen_shannon  1 - JS(A_i, A_j) / ln 2, mean over images and queries: 1: the same, 0: no key in common
    cka             HSIC(K_i, K_j) / sqrt(HSIC(K_i, K_i) HSIC(K_j, K_j)), K: products of a head's outputs at two tokens

CKA is the linear, unbiased one, on the heads' outputs z W_O: numerator and denominators are means over images, and the
samples are the tokens of an image. Unbiased values may lie a little below 0. HSIC is computed as the inner product of
U-centred matrices, so that HSIC(K, K) is a sum of squares and never negative, and z is centred over tokens first:
U-centring takes away what all tokens share in any case, but it would drown everything else in rounding.

Sources: Kornblith et al. 1905.00414 (CKA); Nguyen et al. 2010.15327 (means over batches); Song et al. 2012 (unbiased
HSIC); Szekely & Rizzo 2014 (U-centring: the same estimate); Clark et al. 1906.04341 (heads by Jensen-Shannon).

Shapes: B image, L layer, H head, A = L * H all heads, T token, Q query, K key, D d_head.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from torch import Tensor

from prisma.analysis.attention.token_grid import attention_scopes, image_passes
from prisma.analysis.border import guarded, record
from prisma.analysis.result import Result
from prisma.attention import Attention
from prisma.errors import PrismaError
from prisma.numbers import exact
from prisma.plain import expect_plain
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
        """[head, other_head], over all images; 1 on the diagonal.

        By CKA, a head that writes the same at every token has no variation to compare: 0 in its whole row and column,
        the diagonal included.
        """
        mean_AA = self.products.mean(0)
        length_A = mean_AA.diagonal().clamp(min=0).sqrt()
        whole_AA = length_A[:, None] * length_A
        return torch.where(whole_AA > 0, mean_AA / whole_AA, 0)

    def plot(self, array: str | None = None) -> "Figure":
        """By default the matrix of all heads with all heads, with lines between layers."""
        if array not in (None, "similarity"):
            return super().plot(array)
        title = str(self.metadata["analysis"]).replace("_", " ") + f" ({self.metadata['measure'].replace('_', ' ')})"
        return draw_similarity(self.arrays["similarity"], self.metadata["heads"], title=title)


@guarded
@torch.no_grad()
def head_similarity(
    model: ViT, images: Tensor, *, measure: str = "jensen_shannon", attention: str = "attn", batch: int | None = None
) -> HeadSimilarity:
    """Which heads do the same: are they redundant, or is each one different?

    `.similarity` has a number for each pair of heads: 1 is the same behaviour, 0 is nothing in common. Compare patterns
    (`"jensen_shannon"`, `"cosine"`) to see which heads attend to the same keys, and outputs (`"cka"`) to see which
    heads write the same up to a rotation and a factor. By CKA, what a head writes at every token alike does not count;
    a head that writes nothing else has 0 in common with all, also with itself.

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
        _, acts = record(model, some, [f"{scope}.{_site(model, measure)}" for scope in scopes], stop=True)
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


def _site(model: ViT, measure: str) -> str:
    """What is compared: patterns, or z as W_O reads it."""
    if measure != "cka":
        return "pattern"
    return "ln.normalized" if model.config.norm_z else "z"


def _gram(model: ViT, scope: str, z_BTHD: Tensor) -> Tensor:
    """U-centred products of a head's outputs at two tokens, [image, head, token, token], of z W_O W_O^T z^T."""
    attention = cast(Attention, model.get_submodule(scope))
    expect_plain(model, ["", scope, f"{scope}.ln", f"{scope}.out"], "what single heads write")
    out_HDM = exact(attention.out.weight).T.unflatten(0, z_BTHD.shape[2:])
    z_BHTD = _centred(z_BTHD.transpose(1, 2))
    return _u_centred(z_BHTD @ (out_HDM @ out_HDM.mT) @ z_BHTD.mT)


def _centred(z_BHTD: Tensor) -> Tensor:
    """z minus its mean over tokens, in float32 at least; zero for a head whose tokens differ by rounding alone."""
    whole_BHTD = exact(z_BHTD)
    centred_BHTD = whole_BHTD - whole_BHTD.mean(-2, keepdim=True)
    centred_BHTD = centred_BHTD - centred_BHTD.mean(-2, keepdim=True)  # the mean itself was rounded
    stored, computed = torch.finfo(z_BHTD.dtype).eps, 4 * torch.finfo(whole_BHTD.dtype).eps
    size, whole = (x.abs().amax((-2, -1), keepdim=True) for x in (centred_BHTD, whole_BHTD))
    return torch.where(size > max(stored, computed) * whole, centred_BHTD, 0)


def _u_centred(gram_BHTT: Tensor) -> Tensor:
    """Off the diagonal, each number minus its row's and its column's sum / (n - 2) plus the total / (n - 1)(n - 2)."""
    n = gram_BHTT.shape[-1]
    if n < 4:
        raise PrismaError(f"unbiased CKA needs at least 4 tokens; found {n}")
    off_TT = 1 - torch.eye(n, dtype=gram_BHTT.dtype, device=gram_BHTT.device)
    row_BHT1 = (gram_BHTT * off_TT).sum(-1, keepdim=True) / (n - 2)
    total_BH11 = row_BHT1.sum(-2, keepdim=True) / (n - 1)
    return (gram_BHTT - row_BHT1 - row_BHT1.mT + total_BH11) * off_TT


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
    """The unbiased estimate of HSIC of all pairs (Song et al. 2012, equation 5), from U-centred matrices."""
    n = gram_ATT.shape[-1]
    return _inner(gram_ATT) / (n * (n - 3))


MEASURES: Mapping[str, tuple[Callable[[ViT, str, Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "jensen_shannon": (_pattern, _jensen_shannon),
    "cosine": (_pattern, _inner),
    "cka": (_gram, _hsic),
}
"""Measure -> (a matrix for each head [image, head, ., .]; the products of all pairs of these matrices in one image)."""
