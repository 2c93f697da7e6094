"""Head directions: the singular vectors of a head's circuit are the directions that it reads and writes.

    W_OV = W_V W_O = sum over directions r of  value_r left_r right_r^T,      and the same of  W_QK = W_Q W_K^T

Source: Millidge & Black 2022, The singular value decompositions of transformer weight matrices are interpretable.

Shapes: L layer, H head, M d_model, D d_head, C class, R direction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from prisma.analysis.border import guarded
from prisma.analysis.class_space.class_embeddings import class_embeddings, has_class_embeddings
from prisma.analysis.result import Result
from prisma.circuits import attentions, expect_bilinear, stream_weights
from prisma.errors import PrismaError
from prisma.numbers import exact
from prisma.vit import ViT


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadDirections(Result):
    """The directions that each head reads and writes, one by one: W = sum over directions of value left right^T.

    A large `values` is a direction that the head amplifies; a few large values mean a head that does few things. In the
    "ov" circuit the head reads `left` and writes `right`; in "qk" `left` is in the query, and `right` in the key that
    it attends to. Directions come from the largest value down, with signs such that the largest number in each `right`
    is positive. `metadata["attentions"]` has the names of the layers, one for each attention.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "values": ("layer", "head", "direction"),
        "left": ("layer", "head", "direction", "d_model"),
        "right": ("layer", "head", "direction", "d_model"),
        "classes_left": ("layer", "head", "direction", "class"),
        "classes_right": ("layer", "head", "direction", "class"),
    }

    values: Tensor
    left: Tensor
    right: Tensor
    classes_left: Tensor | None = None  # logits per unit, by `class_embeddings`; None if the model has none
    classes_right: Tensor | None = None

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        return {"layer": self.metadata["attentions"]}


@guarded
@torch.no_grad()
def head_directions(model: ViT, circuit: str = "ov", *, top: int | None = 8, ln: str = "folded") -> HeadDirections:
    """Which directions does each head read and write, from the strongest down?

    The singular vectors of each head's OV (or QK) circuit: `values` says how strong a direction is, `left` what is read
    and `right` what is written (or, for "qk", what is in the query and what in the key). Projected on the classes
    (`classes_left`, `classes_right`), a large positive number names the class that a direction stands for.

    Args:
        circuit: "ov" or "qk".
        top: how many directions of each head; None for all d_head.
        ln: as in `stream_weights` and `class_embeddings`.

    Returns:
        `values` [layer, head, direction], `left` and `right` [layer, head, direction, d_model], unit vectors;
        `classes_left` and `classes_right` [layer, head, direction, class], in logits per unit.

    Raises:
        PrismaError: another circuit, "qk" in a model with QK-norm, no layers, or as `stream_weights`.

    Source: Millidge & Black 2022.
    """
    if circuit not in ("ov", "qk") or (top is not None and top < 1):
        raise PrismaError(f"expected the circuit ov or qk and at least one direction; found {circuit!r} and top={top}")
    if circuit == "qk":
        expect_bilinear(model.config)
    layers = attentions(model.config)
    if not layers:
        raise PrismaError("expected a model with heads; found n_layers=0")
    found: dict[str, list[Tensor]] = {}
    for layer, attention in layers:
        w = stream_weights(model, layer, attention, ln=ln, dtype=torch.float64)
        pair = (w["W_V"], w["W_O"].mT) if circuit == "ov" else (w["W_Q"], w["W_K"])
        parts = dict(zip(("left", "values", "right"), _svd(*pair, top), strict=True))
        if has_class_embeddings(model):
            embedding_CM = class_embeddings(model, (layer, attention), ln=ln, dtype=torch.float64)
            parts |= {f"classes_{side}": parts[side] @ embedding_CM.mT for side in ("left", "right")}
        for name, part in parts.items():
            found.setdefault(name, []).append(part)
    return HeadDirections(
        metadata={
            "analysis": "head_directions", "circuit": circuit, "ln": ln,
            "attentions": [f"blocks.{layer}.{attention}" for layer, attention in layers],
        },
        **{name: torch.stack(parts).to(exact(model.embed.patch.weight).dtype) for name, parts in found.items()},
    )  # fmt: skip


def _svd(left_HMD: Tensor, right_HMD: Tensor, top: int | None) -> Sequence[Tensor]:
    """SVD of left right^T, through a d_head x d_head matrix: left vectors [head, direction, d_model], values, right."""
    (q_HMD, a_HDD), (p_HMD, b_HDD) = (torch.linalg.qr(x) for x in (left_HMD, right_HMD))
    u_HDR, value_HR, v_HRD = torch.linalg.svd(a_HDD @ b_HDD.mT)
    left_HRM, right_HRM = (q_HMD @ u_HDR).mT, (p_HMD @ v_HRD.mT).mT
    largest = right_HRM.gather(-1, right_HRM.abs().argmax(-1, keepdim=True))
    sign = torch.where(largest < 0, -1, 1)
    return left_HRM.mul(sign)[:, :top], value_HR[:, :top], right_HRM.mul(sign)[:, :top]
