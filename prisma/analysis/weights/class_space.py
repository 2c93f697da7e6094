"""Weights in class-embedding space: which classes a head or neuron writes, which ones it reads, and which pixels.

The readout's matrix E [class, d_model] has a direction of the residual stream for each class. What is written to the
stream, projected on E, says which logits it raises:

    neurons  V = E W_out^T     heads  V = E W_O^T     reads of a head  E (W_V W_O)^T

each [class, ...]. *Class-value agreement* is how well the best of a layer's vectors v_m fits a class:
max over m of cos(E_c, v_m); compare it with that of `random_control`.

The singular vectors of a head's circuit are the directions that it reads and writes, one by one (`head_directions`).

Sources: Vilas et al. 2310.18969 (class-embedding space; ln="none" is theirs); Geva et al. 2012.14913 (key-value
memories); Millidge & Black 2022 (singular vectors of weights).

Shapes: L layer, H head, M d_model, D d_head, N d_mlp, C class, R direction.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from prisma.analysis.result import Result
from prisma.circuits import (
    attentions,
    expect_bilinear,
    expect_ln,
    folded_in,
    neuron_weights,
    stream_norms,
    stream_weights,
)
from prisma.errors import PrismaError
from prisma.pretrained.zero_shot import PromptHead
from prisma.vit import ViT, build


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassSpace(Result):
    """`metadata["layers"]` has the numbers of the layers."""

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "agreement_heads": ("layer", "class"),
        "agreement_neurons": ("layer", "class"),
        "heads": ("layer", "class", "head", "d_head"),
        "neurons": ("layer", "class", "neuron"),
    }

    heads: Tensor  # the class's logit for each unit of z
    neurons: Tensor | None = None  # for each unit of mlp.post
    agreement_heads: Tensor  # class-value agreement of the rows of W_O
    agreement_neurons: Tensor | None = None

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        return {"layer": [f"layer {layer}" for layer in self.metadata["layers"]]}


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadDirections(Result):
    """W = sum over directions of value left right^T, the largest first. Of "ov" left is read and right is written; of
    "qk" left is what a query holds, and right the key that it looks for. A layer is an attention, by name in
    `metadata["attentions"]`. Signs are such that the largest number of each `right` is positive."""

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
    classes_left: Tensor | None = None  # projected on E; None if the model has no class embeddings
    classes_right: Tensor | None = None

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        return {"layer": self.metadata["attentions"]}


def class_embeddings(model: ViT, after: tuple[int, str] | None = None, *, ln: str = "folded") -> Tensor:
    """E [class, d_model]: the logit that each unit of a direction adds.

    Where the readout looks at two vectors (pool="class_mean", "distilled"), of a direction that both hold. Of a model
    whose classes are prompts, the prompts' directions through the projection.

    Args:
        after: (layer, "time", "attn" or "mlp") whose output is meant, which decides over the norms of a model with
            norm="post"; None for the end.
        ln: "folded" takes in the norms on the way, but for their divisors; "none" takes none.

    Raises:
        PrismaError: the model has no classes, or attention pooling, which is not linear; or another `ln`.
    """
    expect_ln(ln)
    head, c = model.readout.head, model.config
    if not _has_embeddings(model):
        raise PrismaError(
            "class embeddings need classes and a pooling that is linear: "
            f"found pool={c.pool!r} and n_classes={c.n_classes}"
        )
    embedding = _of_prompts(head) if isinstance(head, PromptHead) else head.get_parameter("weight")
    reads_MC = embedding.unflatten(1, (-1, c.d_model)).sum(1).mT
    if ln == "folded":
        on_stream = [] if after is None else list(stream_norms(model, *after))
        for norm in (model.readout.ln_final, *reversed(on_stream)):
            reads_MC = folded_in(norm, reads_MC)
    return reads_MC.mT


@torch.no_grad()
def class_space(
    model: ViT, *, attention: str = "attn", layers: Iterable[int] | None = None, ln: str = "folded"
) -> ClassSpace:
    """The values of all heads and neurons, in class-embedding space.

    Args:
        attention: "attn", or "time" of divided attention.
        layers: default: all. A layer of ViT-B/16 with 1000 classes takes 15 MB.
        ln: as in `class_embeddings`, `stream_weights` and `neuron_weights`; layer scale always counts.

    Raises:
        PrismaError: as those; or no layers.
    """
    chosen = list(range(model.config.n_layers) if layers is None else layers)
    if not chosen:
        raise PrismaError("class space is of the layers of a model; found no layer")
    found: dict[str, list[Tensor]] = {}
    for layer in chosen:
        values = {"heads": ("attn", stream_weights(model, layer, attention, ln=ln)["W_O"])}
        if model.config.d_mlp:
            values["neurons"] = ("mlp", neuron_weights(model, layer, ln=ln))
        for name, (branch, value) in values.items():
            embedding_CM = class_embeddings(model, (layer, branch), ln=ln)
            unit_CM, unit_NM = (torch.nn.functional.normalize(x, dim=-1) for x in (embedding_CM, value.flatten(0, -2)))
            found.setdefault(name, []).append((value @ embedding_CM.mT).movedim(-1, 0))
            found.setdefault(f"agreement_{name}", []).append((unit_CM @ unit_NM.mT).amax(1))
    return ClassSpace(
        metadata={"analysis": "class_space", "attention": attention, "layers": chosen, "ln": ln},
        **{name: torch.stack(parts) for name, parts in found.items()},
    )


@torch.no_grad()
def class_reads(model: ViT, layer: int, attention: str = "attn", *, ln: str = "folded") -> Tensor:
    """E (W_V W_O)^T [head, class, d_model]: what the stream must hold for a head to raise a class's logit.

    Times E^T, it is the head's OV circuit from class to class: a head that copies classes has a large diagonal.

    Raises:
        PrismaError: as `class_embeddings` and `stream_weights`.
    """
    w = stream_weights(model, layer, attention, ln=ln)
    return class_embeddings(model, (layer, attention), ln=ln) @ w["W_O"].mT @ w["W_V"].mT


@torch.no_grad()
def head_directions(model: ViT, circuit: str = "ov", *, top: int | None = 8, ln: str = "folded") -> HeadDirections:
    """Singular value decomposition of the OV or QK circuit of every head.

    Args:
        top: so many directions of each head; None for all, which are d_head.
        ln: as in `stream_weights` and `class_embeddings`.

    Raises:
        PrismaError: another circuit, "qk" of a model with QK-norm, no layers, or as `stream_weights`.
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
        w = stream_weights(model, layer, attention, ln=ln)
        pair = (w["W_V"], w["W_O"].mT) if circuit == "ov" else (w["W_Q"], w["W_K"])
        parts = dict(zip(("left", "values", "right"), _svd(*pair, top), strict=True))
        if _has_embeddings(model):
            embedding_CM = class_embeddings(model, (layer, attention), ln=ln).to(parts["left"])
            parts |= {f"classes_{side}": parts[side] @ embedding_CM.mT for side in ("left", "right")}
        for name, part in parts.items():
            found.setdefault(name, []).append(part)
    return HeadDirections(
        metadata={
            "analysis": "head_directions", "circuit": circuit, "ln": ln,
            "attentions": [f"blocks.{layer}.{attention}" for layer, attention in layers],
        },
        **{name: torch.stack(parts) for name, parts in found.items()},
    )  # fmt: skip


def to_pixels(model: ViT, directions: Tensor, *, ln: str = "folded") -> Tensor:
    """The patch [..., channel, (frame,) height, width] that a direction [..., d_model] of the embeddings looks for.

    Its dot product with a patch of pixels is what that patch adds along the direction, but for biases and norms'
    divisors.

    Raises:
        PrismaError: directions of another width, or another `ln`.
    """
    expect_ln(ln)
    c, embed = model.config, model.embed
    if directions.shape[-1] != c.d_model:
        raise PrismaError(f"expected directions [..., {c.d_model}], found {list(directions.shape)}")
    reads = directions[..., None]
    for norm in (embed.ln_pre, embed.ln_patch) if ln == "folded" else ():
        reads = folded_in(norm, reads)
    frames = (c.tubelet,) if c.frames > 1 else ()
    return (reads[..., 0] @ embed.patch.weight).unflatten(-1, (c.channels, *frames, *c.patch_sides))


def random_control(model: ViT, seed: int = 0) -> ViT:
    """A model of the same form with weights drawn anew, where and as precise as this one; leaves torch's generator."""
    like = next(model.parameters())
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return build(model.config).to(like).eval()


def _has_embeddings(model: ViT) -> bool:
    """Whether logits are a matrix times what the tokens hold, but for norms."""
    return model.config.n_classes > 0 and model.config.pool != "attention"


def _of_prompts(head: PromptHead) -> Tensor:
    """[prompt, pooled]. The length of the image's embedding is a divisor too, and left out."""
    projection = head.projection
    reads = head.directions @ projection.weight if isinstance(projection, nn.Linear) else head.directions
    return reads * head.scale


def _svd(left_HMD: Tensor, right_HMD: Tensor, top: int | None) -> Sequence[Tensor]:
    """Of left right^T: left vectors [head, direction, d_model], values, right vectors; by way of d_head x d_head."""
    dtype = torch.promote_types(left_HMD.dtype, torch.float32)
    (q_HMD, a_HDD), (p_HMD, b_HDD) = (torch.linalg.qr(x.to(dtype)) for x in (left_HMD, right_HMD))
    u_HDR, value_HR, v_HRD = torch.linalg.svd(a_HDD @ b_HDD.mT)
    left_HRM, right_HRM = (q_HMD @ u_HDR).mT, (p_HMD @ v_HRD.mT).mT
    largest = right_HRM.gather(-1, right_HRM.abs().argmax(-1, keepdim=True))
    sign = torch.where(largest < 0, -1, 1)
    return left_HRM.mul(sign)[:, :top], value_HR[:, :top], right_HRM.mul(sign)[:, :top]
