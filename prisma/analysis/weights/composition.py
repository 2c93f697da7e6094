"""Composition scores: which head reads what an earlier head writes, by the weights alone.

    Q:  ||W_OV W_QK||   / (||W_OV|| ||W_QK||)         the later head's queries read it
    K:  ||W_OV W_QK^T|| / (||W_OV|| ||W_QK||)         its keys do
    V:  ||W_OV W'_OV||  / (||W_OV|| ||W'_OV||)        its values do, so that the two heads act as one

(row vectors, Frobenius norms). A score is large by chance when heads are wide: compare it with `baseline`.

No d_model x d_model matrix is made: with thin QR, V = Q_V R_V and K = Q_K R_K,

    ||V O Q K^T|| = ||R_V (O Q) R_K^T||,              a product of matrices [d_head, d_head] for each pair.

Source: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits.

Shapes: S earlier head (the sender), H head of a layer, M d_model, D and E d_head.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from prisma.analysis.result import Result
from prisma.circuits import attentions, expect_bilinear, expect_ln, folded_out, stream_weights
from prisma.errors import PrismaError
from prisma.view.figures.plots import draw
from prisma.vit import ViT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

READS: Mapping[str, tuple[str, str]] = {"q": ("W_Q", "W_K"), "k": ("W_K", "W_Q"), "v": ("W_V", "W_O")}
"""What a later head reads by -> its matrix, and the other one of that circuit."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Composition(Result):
    """Scores from 0 to 1 of every pair of heads; 0 where the sender is not before. A layer is an attention:
    `metadata["attentions"]` has their names, two for each block of divided attention."""

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "q": ("sender_layer", "sender_head", "layer", "head"),
        "k": ("sender_layer", "sender_head", "layer", "head"),
        "v": ("sender_layer", "sender_head", "layer", "head"),
        "baseline": ("sample",),
    }

    q: Tensor | None = None
    k: Tensor | None = None
    v: Tensor | None = None
    baseline: Tensor  # the score of random heads of this size: its mean is chance

    def plot(self, array: str | None = None) -> "Figure":
        """Heat maps of all heads with all heads, layer after layer: of every kind, or of the one that is named. Blank
        where the sender is not before; the title says what chance is."""
        kinds = [name for name in self.axes if name != "baseline" and array in (None, name)]
        if not kinds:
            return super().plot(array)
        scores = torch.stack([self.arrays[kind] for kind in kinds])[:, :-1, :, 1:]  # the last writes to none
        earlier, heads, later = scores.shape[1:4]
        blank = ~torch.ones(earlier, later, dtype=torch.bool).triu()
        figure = draw(
            scores.masked_fill(blank[:, None, :, None], torch.nan).flatten(3).flatten(1, 2),
            ("by", "sender", "head"),
            title=f"composition (by chance {self.baseline.mean():.2f})",
            names={"by": [f"by {kind}" for kind in kinds]},
        )
        layers = [name.removeprefix("blocks.").removesuffix(".attn") for name in self.metadata["attentions"]]
        for panel in figure.axes[: len(kinds)]:
            panel.set(xlabel="reading head, by layer", ylabel="writing head, by layer")
            for axis, line, names in (
                (panel.yaxis, panel.axhline, layers[:-1]),
                (panel.xaxis, panel.axvline, layers[1:]),
            ):
                if len(names) * heads <= 8:  # room for each head
                    each = [f"{name}.{head}" for name in names for head in range(heads)]
                    axis.set_ticks(range(len(each)), each)
                else:
                    axis.set_ticks([heads * i + (heads - 1) / 2 for i in range(len(names))], names)
                for i in range(1, len(names)):
                    line(heads * i - 0.5, color="#d0d4da", linewidth=0.6)
        return figure


@torch.no_grad()
def composition(
    model: ViT, *, of: Sequence[str] = ("q", "k", "v"), ln: str = "folded", samples: int = 32, seed: int = 0
) -> Composition:
    """Composition scores of every pair of heads.

    Args:
        of: "q", "k", "v": by what the later head reads. Rotary positions are left out of q and k.
        ln: "folded" takes in the weights of all norms between the two heads, "none" takes none. Layer scale counts.
        samples, seed: of the pairs of random heads.

    Raises:
        PrismaError: q or k of a model with QK-norm, fewer than two attentions, or another option.
    """
    expect_ln(ln)
    if not of or not set(of) <= set(READS) or samples < 1:
        raise PrismaError(f"expected some of q, k, v and at least 1 sample; found {list(of)} and {samples}")
    if {"q", "k"} & set(of):
        expect_bilinear(model.config)
    layers, (heads, d_head) = attentions(model.config), (model.config.n_heads, model.config.d_head)
    if len(layers) < 2:
        raise PrismaError(f"heads compose across layers: expected two attentions, found {len(layers)}")
    dtype = torch.promote_types(next(model.parameters()).dtype, torch.float32)
    written_SDM = torch.empty(0, min(d_head, model.config.d_model), model.config.d_model)
    rows: dict[str, list[Tensor]] = {kind: [] for kind in of}
    for layer, attention in layers:
        w = {k: x.to(dtype) for k, x in stream_weights(model, layer, attention, ln=ln).items()}
        for kind, scores in rows.items():
            read, other = (w[name] for name in READS[kind])
            score_SH = _score(written_SDM.to(read), read, other.mT if kind == "v" else other)
            scores.append(torch.cat([score_SH, score_SH.new_zeros(len(layers) * heads - len(score_SH), heads)]))
        written_SDM = torch.cat([written_SDM.to(w["W_O"]), _triangle(w["W_V"]) @ w["W_O"]])
        if ln == "folded" and model.config.norm == "post":  # what has been written passes the stream's own norms
            for norm in (model.blocks[layer].get_submodule(name) for name in ("ln1", "ln2")):
                written_SDM = folded_out(norm, written_SDM)
    found = {kind: torch.stack(scores, dim=1).unflatten(0, (len(layers), heads)) for kind, scores in rows.items()}
    return Composition(
        metadata={
            "analysis": "composition", "ln": ln, "samples": samples, "seed": seed,
            "attentions": [f"blocks.{layer}.{attention}" for layer, attention in layers],
        },
        baseline=_chance(model.config.d_model, d_head, samples, seed, dtype),
        **found,
    )  # fmt: skip


def _score(written_SDM: Tensor, read_HMD: Tensor, other_HMD: Tensor) -> Tensor:
    """[sender, head]: how much of what is written is read by `read other^T`; `written` is R_V O of the senders."""
    other_HDD = _triangle(other_HMD)
    between_SHDE = torch.einsum("sdm,hme->shde", written_SDM, read_HMD) @ other_HDD.mT
    size_H = torch.linalg.matrix_norm(_triangle(read_HMD) @ other_HDD.mT)
    size_S = torch.linalg.matrix_norm(written_SDM)
    whole_SH = size_S[:, None] * size_H
    return torch.linalg.matrix_norm(between_SHDE) / torch.where(whole_SH > 0, whole_SH, 1)  # an idle head composes not


def _triangle(x_HMD: Tensor) -> Tensor:
    """R of the thin QR: ||x y|| = ||R y|| for every y."""
    return torch.linalg.qr(x_HMD).R


def _chance(d_model: int, d_head: int, samples: int, seed: int, dtype: torch.dtype) -> Tensor:
    """The score [sample] of pairs of heads with Gaussian weights; q, k and v are alike."""
    generator = torch.Generator().manual_seed(seed)
    value, out, read, other = torch.randn(4, samples, d_model, d_head, generator=generator, dtype=dtype).unbind(0)
    pairs = zip(_triangle(value) @ out.mT, read, other, strict=True)
    return torch.cat([_score(written[None], r[None], o[None])[0] for written, r, o in pairs])
