"""Attention perturbation: does the class reach the patches from other tokens, or from the class token?

In chosen layers, and in the rows of the patches alone (the class token and registers attend as before):

    self_only   a_tt = 1, all else 0: each patch attends to itself
    no_cls      a_t0 = 0: no patch attends to the class token; the row sums to 1 - a_t0, or to 1 with `renormalise`

What the readout reads as a class token is one: with `pool="distilled"`, "no_cls" also cuts the distillation token, for
through it patches could get the class as through the class token. Other registers are still attended to.

Source: Vilas et al. 2310.18969, who do not renormalise.

Shapes: B image, T token.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prisma.analysis.border import guarded
from prisma.analysis.class_space.class_projection import Projection
from prisma.analysis.class_space.passes import chosen_layers
from prisma.analysis.class_space.perturbed import Perturbed, expect_compat, last_stage
from prisma.analysis.class_space.ranks import expect_labels
from prisma.analysis.class_space.token_kinds import coverage_of, kinds_metadata
from prisma.edits import Edit, Set, Zero
from prisma.errors import PrismaError
from prisma.vit import ViT

KINDS = ("self_only", "no_cls")


@dataclass(frozen=True, eq=False, repr=False)
class SelfOnly(Edit):
    """Every query attends to itself alone; an edit of `attn.pattern`."""

    def __call__(self, x: Tensor, axes: tuple[str, ...]) -> Tensor:
        return torch.eye(x.shape[-2], x.shape[-1], dtype=x.dtype, device=x.device).expand_as(x)


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionPerturbation(Perturbed):
    """How well the class can be read from patches that attend to less, and how often the answer is still right.

    A rate that falls to chance says that the patches got the class from the tokens that they no longer attend to.
    """


def attention_edits(
    model: ViT, kind: str = "self_only", *, renormalise: bool = False, layers: Iterable[int] | None = None
) -> dict[str, Edit]:
    """The edits of a perturbation, for `prisma.run` and `prisma.record`.

    Args:
        kind, renormalise, layers: as in `attention_perturbation`.

    Raises:
        PrismaError: another kind, a layer that does not exist, no class token for "no_cls", or divided attention.
    """
    c = model.config
    if kind not in KINDS:
        raise PrismaError(f"expected kind to be {' or '.join(KINDS)}; found {kind!r}")
    if c.attention == "divided":
        raise PrismaError("expected attention over all tokens; found attention='divided'")
    if kind == "no_cls" and not c.class_token:
        raise PrismaError("expected a model with a class token for kind='no_cls'; found none")
    patches, class_tokens = slice(c.n_prefix, None), slice(0, 2 if c.pool == "distilled" else 1)
    site, edit = "pattern", SelfOnly().at(query=patches)
    if kind == "no_cls":  # minus infinity before the softmax leaves rows that sum to one
        edit = (Set(-torch.inf) if renormalise else Zero()).at(query=patches, key=class_tokens)
        site = "scores" if renormalise else "pattern"
    return {f"blocks.{layer}.attn.{site}": edit for layer in chosen_layers(c, layers)}


@guarded
@torch.no_grad()
def attention_perturbation(
    model: ViT,
    images: Tensor,
    labels: Tensor,
    *,
    kind: str = "self_only",
    renormalise: bool = False,
    layers: Iterable[int] | None = None,
    masks: Tensor | None = None,
    with_class_token: bool = False,
    norm: str = "final",
    bias: bool = True,
    compat: str | None = None,
    batch: int | None = None,
) -> AttentionPerturbation:
    """Do patches still hold the class if they attend to themselves alone, or not to the class token?

    Compare `rate` with `clean_rate`, and `correct` with `clean_correct`: where the rate falls to chance (1 / C), what
    made the class readable came through the attention that was cut.

    Args:
        images: [batch, channel, height, width].
        labels: [batch], whole numbers.
        kind: "self_only" or "no_cls", as at the top of this file.
        renormalise: whether rows without the class token sum to 1; rows of "self_only" do.
        layers: numbers of the layers, each once; by default all.
        masks: as in `class_identifiability`, for tokens of the kinds object and context.
        with_class_token: whether rates count the class token too.
        norm, bias: how a token is projected, as in `class_space.project`.
        compat: "vilas2023" computes the published numbers: `rate` includes the class token, `clean_rate` does not.
        batch: images in one pass; by default as many as have about 256 MiB of activations.

    Returns:
        `rate`, `clean_rate`, `correct`, `clean_correct` [image] and `first`, `rank` and those of the clean run
        [image, token].

    Raises:
        PrismaError: as `attention_edits` and `class_identifiability`.

    Source: Vilas et al. 2310.18969.
    """
    labels, chosen = expect_labels(model, images, labels), chosen_layers(model.config, layers)
    expect_compat(compat)
    edits = attention_edits(model, kind, renormalise=renormalise, layers=chosen)
    share = None if masks is None else coverage_of(model.config, images, masks)
    projection = Projection(model, norm, bias)
    clean = last_stage(model, images, labels, projection, batch).arrays("clean_")
    changed = last_stage(model, images, labels, projection, batch, edits).arrays()
    settings: dict[str, Any] = {"kind": kind, "renormalise": renormalise, "layers": chosen, "compat": compat}
    settings |= {"with_class_token": with_class_token, "norm": norm, "bias": bias, "classes": model.config.n_classes}
    kinds = kinds_metadata(model.config)
    return AttentionPerturbation(
        metadata={"analysis": "attention_perturbation", **settings, **kinds}, coverage=share, **changed, **clean
    )
