"""Token perturbation: do the object's patches still hold the class without the context, and the other way round?

After the embedding, only the prefix tokens and the patches of one kind go on:

    remove="context"      the object's patches are left (the mask covers at least half of each)
    remove="class_label"  patches of which the mask covers nothing are left

Patches in between go in both cases. There are two ways to remove a token, with the same answer: a shorter sequence
(`how="index"`), or no attention to it (`how="attention"`), which also works where attention knows the places of tokens.

Source: Vilas et al. 2310.18969. A model that never saw images with missing patches may fail for that reason alone.

Shapes: B image, T token, M d_model.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from prisma.analysis.border import expect_finite_run, guarded, record
from prisma.analysis.class_space.class_projection import Projection
from prisma.analysis.class_space.passes import stage_sites
from prisma.analysis.class_space.perturbed import LastStage, Perturbed, last_stage
from prisma.analysis.class_space.ranks import expect_labels
from prisma.analysis.class_space.token_kinds import coverage_of, kinds_metadata, token_kinds
from prisma.batching import block_memory, inputs_per_pass
from prisma.edits import Set
from prisma.errors import PrismaError
from prisma.plain import expect_plain
from prisma.vit import ViT

LEFT = {"context": "object", "class_label": "context"}
"""What is removed -> the kind of patch that is left."""
WAYS = ("index", "attention")


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenPerturbation(Perturbed):
    """How well the class can be read from patches of one kind without the others, and how often the answer is right.

    `rate` falls below `clean_rate` where these patches got the class from the ones that were removed. Numbers are NaN
    for an image of which no patch of that kind is left.
    """


@guarded
@torch.no_grad()
def token_perturbation(
    model: ViT,
    images: Tensor,
    labels: Tensor,
    masks: Tensor,
    *,
    remove: str = "context",
    how: str = "index",
    with_class_token: bool = False,
    norm: str = "final",
    bias: bool = True,
    batch: int | None = None,
) -> TokenPerturbation:
    """Do the patches that are left hold the class by themselves, or did they get it from those that are removed?

    Compare `rate` with `clean_rate`, which is over the same patches: where it falls to chance (1 / C), all that was
    readable there came from the patches that were removed.

    Args:
        images: [batch, channel, height, width].
        labels: [batch], whole numbers.
        masks: of the objects, [batch, height, width] of the images' size, or the share of each patch
            [batch, row, column].
        remove: "context" or "class_label" (the object), as at the top of this file.
        how: "index" or "attention": how tokens are removed.
        with_class_token: whether rates count the class token too.
        norm, bias: how a token is projected, as in `class_space.project`.
        batch: images in one pass; by default as many as have about 256 MiB of activations.

    Returns:
        `rate`, `clean_rate`, `correct`, `clean_correct` [image] and `first`, `rank` and those of the clean run
        [image, token], NaN for tokens that were removed.

    Raises:
        PrismaError: another option; masks or labels that do not fit; or `how="index"` with a model whose attention
            knows the places of tokens.

    Source: Vilas et al. 2310.18969.
    """
    expect_labels(model, images, labels)
    if remove not in LEFT or how not in WAYS:
        raise PrismaError(
            f"expected remove to be {' or '.join(LEFT)}, and how {' or '.join(WAYS)}; found {remove!r} and {how!r}"
        )
    share, c = coverage_of(model.config, images, masks), model.config
    if how == "index" and (c.rotary != "none" or c.score_bias):
        raise PrismaError(
            "expected attention that does not know the places of tokens, for how='index'; found "
            f"rotary={c.rotary!r} and score_bias={c.score_bias}: use how='attention'"
        )
    left_BT = token_kinds(c.n_tokens, c.n_prefix, c.class_token, share)[LEFT[remove]]
    projection = Projection(model, norm, bias)
    clean = last_stage(model, images, labels, projection, batch).arrays("clean_")
    changed = _without(model, images, labels, left_BT | (torch.arange(c.n_tokens) < c.n_prefix), projection, how, batch)
    settings = {"remove": remove, "how": how, "with_class_token": with_class_token}
    kinds = kinds_metadata(c) | {"norm": norm, "bias": bias, "classes": c.n_classes}
    return TokenPerturbation(
        metadata={"analysis": "token_perturbation", **settings, **kinds}, coverage=share, **changed.arrays(), **clean
    )


def _without(
    model: ViT, images: Tensor, labels: Tensor, kept_BT: Tensor, projection: Projection, how: str, batch: int | None
) -> LastStage:
    """The class at the tokens that are kept."""
    c, found = model.config, LastStage(len(images), model.config.n_tokens)
    expect_plain(model, [""], "runs on fewer tokens")
    needs_patches = c.pool not in ("class", "distilled")
    for rows, places_BN in _same_length(kept_BT, inputs_per_pass(model, batch, memory=_memory(model, how))):
        if not places_BN.shape[1]:
            continue
        some, label_B = images[rows.to(images.device)], labels[rows.to(labels.device)]
        kept = places_BN.to(some.device)
        if how == "index":
            x_BNM = model.encode(_taken(model.embed(some), kept))
        else:
            x_BNM = _taken(_masked(model, some, kept_BT[rows].to(some.device)), kept)
        has_patches = places_BN.shape[1] > c.n_prefix
        answer = model.readout(x_BNM) if has_patches or not needs_patches else None
        found.add(rows, places_BN, projection(expect_finite_run(x_BNM)), answer, label_B)
    return found


def _memory(model: ViT, how: str) -> int:
    """Bytes of one image: a block, its scores where they are masked, and the logits of all tokens."""
    c = model.config
    numbers = 2 * c.n_tokens * c.n_classes + 3 * c.n_heads * c.n_tokens**2 * (how == "attention")
    return block_memory(model) + 4 * numbers


def _same_length(kept_BT: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(images, the places of their kept tokens [image, n]): images that keep equally many tokens, some at a time."""
    counts = kept_BT.sum(1)
    for count in counts.unique().tolist():
        for rows in (counts == count).nonzero()[:, 0].split(size):
            yield rows, kept_BT[rows].nonzero()[:, 1].view(len(rows), count)


def _taken(x_BTM: Tensor, places_BN: Tensor) -> Tensor:
    return x_BTM.gather(1, places_BN[..., None].expand(-1, -1, x_BTM.shape[-1]))


def _masked(model: ViT, images: Tensor, kept_BT: Tensor) -> Tensor:
    """The last residual stream of a run in which nothing attends to the tokens that are not kept."""
    c = model.config
    mask = ~kept_BT[:, None, None].expand(-1, c.n_heads, c.n_tokens, -1)
    edits = {f"blocks.{layer}.attn.scores": Set(-torch.inf).where(mask) for layer in range(c.n_layers)}
    last = stage_sites(model)[-1:]
    return record(model, images, last, edits)[1][last[0]] if last else model.embed(images)
