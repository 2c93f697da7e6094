"""Composition: which head reads what an earlier head writes, by the weights alone.

    Q:  ||W_OV W_QK||   / (||W_OV|| ||W_QK||)         the later head's queries read it
    K:  ||W_OV W_QK^T|| / (||W_OV|| ||W_QK||)         the later head's keys read it
    V:  ||W_OV W'_OV||  / (||W_OV|| ||W'_OV||)        the later head's values read it, so the two heads act as one

(row vectors, Frobenius norms). A score is large by chance when heads are wide: compare it with `baseline`.

No d_model x d_model matrix is computed: with thin QR, V = Q_V R_V and K = Q_K R_K,

    ||V O Q K^T|| = ||R_V (O Q) R_K^T||,              a product of matrices [d_head, d_head] for each pair.

Source: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits.

Shapes: S earlier head (the sender), H head of a layer, M d_model, D and E d_head.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from prisma.analysis.border import guarded
from prisma.analysis.result import Result
from prisma.circuits import attentions, expect_bilinear, expect_ln, folded_out, stream_weights
from prisma.errors import PrismaError
from prisma.numbers import exact
from prisma.view.figures.head_pairs import draw_composition
from prisma.vit import ViT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

READS: Mapping[str, tuple[str, str]] = {"q": ("W_Q", "W_K"), "k": ("W_K", "W_Q"), "v": ("W_V", "W_O")}
"""The input of the later head -> its matrix, and the other matrix of that circuit."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Composition(Result):
    """How much of what one head writes another head reads, for every pair of heads.

    Scores from 0 to 1: near `baseline.mean()` is chance, far above it means that the later head is built to read the
    earlier one. 0 where the sender does not come before the reader. A layer is an attention: `metadata["attentions"]`
    has the names, two for each block of divided attention.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "q": ("sender_layer", "sender_head", "layer", "head"),
        "k": ("sender_layer", "sender_head", "layer", "head"),
        "v": ("sender_layer", "sender_head", "layer", "head"),
        "baseline": ("sample",),
    }

    q: Tensor | None = None
    k: Tensor | None = None
    v: Tensor | None = None
    baseline: Tensor  # scores of random heads of this size: their mean is chance

    def plot(self, array: str | None = None) -> "Figure":
        """Heat maps of all heads with all heads, for every kind, or for the one that is named; the title has chance.

        Blank where the writing head does not come before the reading head.
        """
        kinds = [name for name in self.axes if name != "baseline" and array in (None, name)]
        if not kinds:
            return super().plot(array)
        layers = [name.removeprefix("blocks.").removesuffix(".attn") for name in self.metadata["attentions"]]
        title = f"{self.metadata['analysis']} (by chance {self.baseline.mean():.2f})"
        return draw_composition({kind: self.arrays[kind] for kind in kinds}, layers, title=title)


@guarded
@torch.no_grad()
def composition(
    model: ViT, *, of: Sequence[str] = ("q", "k", "v"), ln: str = "folded", samples: int = 32, seed: int = 0
) -> Composition:
    """Which head reads what an earlier head writes, by the weights alone?

    Each number is the share of what the earlier head writes that the later head reads, from 0 to 1, as queries (`q`),
    keys (`k`) or values (`v`). Compare it with `baseline`, the scores of random heads: about the same is chance, far
    above means that the two heads may form a circuit, which patching can then test.

    Args:
        of: some of "q", "k", "v": the inputs of the later head. Rotary positions are left out of q and k.
        ln: "folded" includes the weights of all norms between the two heads, "none" includes none. Layer scale is
            always included.
        samples: how many pairs of random heads `baseline` has.
        seed: seed of the random heads.

    Returns:
        `q`, `k`, `v` [sender_layer, sender_head, layer, head] and `baseline` [sample]; ratios without a unit.

    Raises:
        PrismaError: q or k in a model with QK-norm, fewer than two attentions, or an option with another value.

    Source: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits.
    """
    expect_ln(ln)
    if not of or not set(of) <= set(READS) or samples < 1:
        raise PrismaError(f"expected some of q, k, v and at least 1 sample; found {list(of)} and {samples}")
    if {"q", "k"} & set(of):
        expect_bilinear(model.config)
    layers, (heads, d_head) = attentions(model.config), (model.config.n_heads, model.config.d_head)
    if len(layers) < 2:
        raise PrismaError(f"expected at least two attentions, since heads compose across layers; found {len(layers)}")
    dtype = exact(model.embed.patch.weight).dtype
    written_SDM = torch.empty(0, min(d_head, model.config.d_model), model.config.d_model)
    rows: dict[str, list[Tensor]] = {kind: [] for kind in of}
    for layer, attention in layers:
        w = stream_weights(model, layer, attention, ln=ln, dtype=torch.float64)
        for kind, scores in rows.items():
            read, other = (w[name] for name in READS[kind])
            score_SH = _score(written_SDM.to(read), read, other.mT if kind == "v" else other)
            scores.append(torch.cat([score_SH, score_SH.new_zeros(len(layers) * heads - len(score_SH), heads)]))
        written_SDM = torch.cat([written_SDM.to(w["W_O"]), _triangle(w["W_V"]) @ w["W_O"]])
        if ln == "folded" and model.config.norm == "post":  # what was written passes through the norms of the stream
            for norm in (model.blocks[layer].get_submodule(name) for name in ("ln1", "ln2")):
                written_SDM = folded_out(norm, written_SDM)
    found = {kind: torch.stack(s, dim=1).unflatten(0, (len(layers), heads)).to(dtype) for kind, s in rows.items()}
    return Composition(
        metadata={
            "analysis": "composition", "ln": ln, "samples": samples, "seed": seed,
            "attentions": [f"blocks.{layer}.{attention}" for layer, attention in layers],
        },
        baseline=_chance(model.config.d_model, d_head, samples, seed, dtype),
        **found,
    )  # fmt: skip


def _score(written_SDM: Tensor, read_HMD: Tensor, other_HMD: Tensor) -> Tensor:
    """[sender, head]: the share of what is written that `read other^T` reads; `written` is R_V O of the senders."""
    other_HDD = _triangle(other_HMD)
    between_SHDE = torch.einsum("sdm,hme->shde", written_SDM, read_HMD) @ other_HDD.mT
    size_H = torch.linalg.matrix_norm(_triangle(read_HMD) @ other_HDD.mT)
    size_S = torch.linalg.matrix_norm(written_SDM)
    whole_SH = size_S[:, None] * size_H
    return torch.linalg.matrix_norm(between_SHDE) / torch.where(
        whole_SH > 0, whole_SH, 1
    )  # a head without weights scores 0


def _triangle(x_HMD: Tensor) -> Tensor:
    """R of the thin QR: ||x y|| = ||R y|| for every y."""
    return torch.linalg.qr(x_HMD).R


def _chance(d_model: int, d_head: int, samples: int, seed: int, dtype: torch.dtype) -> Tensor:
    """The score [sample] of pairs of heads with Gaussian weights; it is the same for q, k and v."""
    generator = torch.Generator().manual_seed(seed)
    value, out, read, other = torch.randn(4, samples, d_model, d_head, generator=generator, dtype=dtype).unbind(0)
    pairs = zip(_triangle(value) @ out.mT, read, other, strict=True)
    return torch.cat([_score(written[None], r[None], o[None])[0] for written, r, o in pairs])
