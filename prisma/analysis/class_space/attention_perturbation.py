"""Attention perturbation: does the class reach the patches from other tokens, or from the class token?

In chosen layers, and in the rows of the patches alone (the class token and registers attend as before):

    self_only   a_tt = 1, all else 0: each patch attends to itself
    no_cls      a_t0 = 0: no patch attends to the class token; the row sums to 1 - a_t0, or to 1 with `renormalise`

Source: Vilas et al. 2310.18969, who do not renormalise.

Shapes: B image, T token.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from prisma.analysis.border import guarded
from prisma.analysis.class_space.class_projection import Projection
from prisma.analysis.class_space.perturbed import Perturbed, last_stage
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
    chosen = list(range(c.n_layers) if layers is None else layers)
    if not chosen or not all(0 <= layer < c.n_layers for layer in chosen):
        raise PrismaError(f"expected layers from 0 to {c.n_layers - 1}; found {chosen}")
    patches = slice(c.n_prefix, None)
    site, edit = "pattern", SelfOnly().at(query=patches)
    if kind == "no_cls":  # minus infinity before the softmax leaves rows that sum to one
        edit = (Set(-torch.inf) if renormalise else Zero()).at(query=patches, key=0)
        site = "scores" if renormalise else "pattern"
    return {f"blocks.{layer}.attn.{site}": edit for layer in dict.fromkeys(chosen)}


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
        layers: numbers of the layers, by default all.
        masks: as in `class_identifiability`, for tokens of the kinds object and context.
        with_class_token: whether rates count the class token too.
        norm, bias: how a token is projected, as in `class_space.project`.
        batch: images in one pass; by default as many as have about 256 MiB of activations.

    Returns:
        `rate`, `clean_rate`, `correct`, `clean_correct` [image] and `first`, `rank` and those of the clean run
        [image, token].

    Raises:
        PrismaError: as `attention_edits` and `class_identifiability`.

    Source: Vilas et al. 2310.18969.
    """
    expect_labels(model, images, labels)
    chosen = list(range(model.config.n_layers) if layers is None else layers)
    edits = attention_edits(model, kind, renormalise=renormalise, layers=chosen)
    share = None if masks is None else coverage_of(model.config, images, masks)
    projection = Projection(model, norm, bias)
    clean = last_stage(model, images, labels, projection, batch).arrays("clean_")
    changed = last_stage(model, images, labels, projection, batch, edits).arrays()
    settings = {"kind": kind, "renormalise": renormalise, "layers": chosen, "with_class_token": with_class_token}
    kinds = kinds_metadata(model.config) | {"norm": norm, "bias": bias, "classes": model.config.n_classes}
    return AttentionPerturbation(
        metadata={"analysis": "attention_perturbation", **settings, **kinds}, coverage=share, **changed, **clean
    )
