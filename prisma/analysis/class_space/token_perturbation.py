"""Token perturbation: do the object's patches still hold the class without the context, and the other way round?

After the embedding, only the prefix tokens and the patches of one kind go on:

    remove="context"      the object's patches are left (the mask covers at least half of each)
    remove="class_label"  patches of which the mask covers nothing are left

Patches in between go in both cases, and an image of which no patch is left has no numbers. There are two ways to remove
a token, with the same answer: a shorter sequence (`how="index"`), or no attention to it (`how="attention"`), which also
works where attention knows the places of tokens.

Source: Vilas et al. 2310.18969. A model that never saw images with missing patches may fail for that reason alone.

Shapes: B image, T token, M d_model.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from prisma.analysis.border import expect_finite_run, guarded
from prisma.analysis.class_space.class_projection import Projection
from prisma.analysis.class_space.perturbed import LastStage, Perturbed, expect_compat, last_stage
from prisma.analysis.class_space.ranks import expect_labels
from prisma.analysis.class_space.token_kinds import coverage_of, kinds_metadata, nearest_coverage, token_kinds
from prisma.analysis.fewer_tokens import only_keys, positions_in_attention, same_length, taken
from prisma.batching import block_memory, inputs_per_pass
from prisma.errors import PrismaError
from prisma.plain import expect_plain
from prisma.sites import Tap
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
    compat: str | None = None,
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
        compat: "vilas2023" computes the published numbers: a patch is of the object if the mask's pixel at its upper
            left corner is (a mask resized by the nearest pixel), `rate` includes the class token, and `clean_rate` does
            not, whose mean in `figures` is over all tokens of all images at once.
        batch: images in one pass; by default as many as have about 256 MiB of activations.

    Returns:
        `rate`, `clean_rate`, `correct`, `clean_correct` [image] and `first`, `rank` and those of the clean run
        [image, token], NaN for tokens that were removed.

    Raises:
        PrismaError: another option; masks or labels that do not fit; `how="index"` with a model whose attention knows
            the places of tokens; or `compat` with masks of patches.

    Source: Vilas et al. 2310.18969.
    """
    labels, c = expect_labels(model, images, labels), model.config
    _expect_removable(model, remove, how, compat)
    share = nearest_coverage(c, images, masks) if compat else coverage_of(c, images, masks)
    left_BT = token_kinds(c.n_tokens, c.n_prefix, c.class_token, share)[LEFT[remove]]
    some_B = left_BT.any(1)
    kept_BT = left_BT | (some_B[:, None] & (torch.arange(c.n_tokens) < c.n_prefix))
    projection = Projection(model, norm, bias)
    clean = last_stage(model, images, labels, projection, batch).of(some_B).arrays("clean_")
    changed = _without(model, images, labels, kept_BT, projection, how, batch)
    settings = {"remove": remove, "how": how, "with_class_token": with_class_token, "compat": compat}
    kinds = kinds_metadata(c) | {"norm": norm, "bias": bias, "classes": c.n_classes}
    return TokenPerturbation(
        metadata={"analysis": "token_perturbation", **settings, **kinds}, coverage=share, **changed.arrays(), **clean
    )


def _expect_removable(model: ViT, remove: str, how: str, compat: str | None) -> None:
    c = model.config
    expect_compat(compat)
    if remove not in tuple(LEFT) or how not in WAYS:
        raise PrismaError(
            f"expected remove to be {' or '.join(LEFT)}, and how {' or '.join(WAYS)}; found {remove!r} and {how!r}"
        )
    if how == "index" and positions_in_attention(c):
        raise PrismaError(
            "expected attention that does not know the places of tokens, for how='index'; found "
            f"rotary={c.rotary!r} and score_bias={c.score_bias}: use how='attention'"
        )
    expect_plain(model, [""], "runs on fewer tokens")


def _without(
    model: ViT, images: Tensor, labels: Tensor, kept_BT: Tensor, projection: Projection, how: str, batch: int | None
) -> LastStage:
    """The class at the tokens that are kept; an image of which none is kept has no numbers."""
    c, found = model.config, LastStage(len(images), model.config.n_tokens)
    size = inputs_per_pass(model, batch, memory=_memory(model, how))
    for rows, places_BN in same_length(kept_BT.to(images.device), lambda tokens: size):
        if not places_BN.shape[1]:
            continue
        x_BTM = model.embed(images[rows])
        if how == "index":
            x_BNM = model.encode(taken(x_BTM, places_BN))
        else:
            x_BNM = taken(model.encode(x_BTM, tap=Tap(frozenset(), only_keys(c, places_BN))), places_BN)
        found.add(rows, places_BN, projection(expect_finite_run(x_BNM)), model.readout(x_BNM), labels[rows])
    return found


def _memory(model: ViT, how: str) -> int:
    """Bytes of one image: a block, its scores where they are masked, and the logits of all tokens."""
    c = model.config
    numbers = 2 * c.n_tokens * c.n_classes + 3 * c.n_heads * c.n_tokens**2 * (how == "attention")
    return block_memory(model) + 4 * numbers
