"""Scores of heads: each is the share of a head's attention that falls on certain keys.

    score = mean over queries of sum_k A[q, k] w[q, k]          w in [0, 1], the keys that count

A query counts if it has such a key: the first patch has no patch before it, so it is left out of `previous_patch`.
Chance is the score of a head whose attention is uniform; it stands beside every score.

Sources: heads of Voita et al. 1905.09418 (position) and Elhage et al. 2021, Olsson et al. 2209.11895 (previous token,
induction), Caron et al. 2104.14294 (object), Darcet et al. 2309.16588 (registers), Xiao et al. 2309.17453 (sink),
carried over to patches.

Shapes: B image, H head, Q query, K key, P patch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from prisma.analysis.attention.token_grid import TokenGrid
from prisma.errors import PrismaError


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreContext:
    """What a score may use besides the pattern: where the tokens are, and what the images show there."""

    keys: TokenGrid  # the keys; the queries are the same tokens, except in attention pooling
    uniform: Tensor  # [query, key], the pattern of uniform attention, in the type of the patterns
    queries: Tensor  # [query], boolean: the queries that the score is averaged over
    coverage: Tensor | None = None  # [image, patch]: share of the patch that the object covers
    content: Tensor | None = None  # [image, patch], whole numbers: equal numbers are equal content, 0 is no content

    @property
    def available(self) -> dict[str, bool]:
        """What a score may need -> whether the model and the images have it."""
        return {
            "a class token": self.keys.class_token,
            "registers": self.keys.registers > 0,
            "tokens as queries": len(self.uniform) == self.keys.n_tokens,
            "masks": self.coverage is not None,
            "content": self.content is not None,
        }


KeyWeights = Callable[[ScoreContext], Tensor]
"""How much attention to each key counts, [image or 1, query or 1, key], from 0 to 1."""


@dataclass(frozen=True)
class Score:
    """`score(pattern, context)`: a number from 0 to 1 for each head and image, NaN for an image without such keys."""

    description: str  # "attention to ..."
    function: Callable[[Tensor, ScoreContext], Tensor]  # pattern [image, head, query, key], context -> [image, head]
    needs: tuple[str, ...] = ()  # names in `ScoreContext.available`

    def __call__(self, pattern_BHQK: Tensor, context: ScoreContext) -> Tensor:
        return self.function(pattern_BHQK, context)

    def missing(self, context: ScoreContext) -> str:
        """What this score needs and the model or the images lack, in words; empty if it can be computed."""
        absent = [need for need in self.needs if not context.available[need]]
        if absent:
            return f"it needs {' and '.join(absent)}"
        of_images = {"masks", "content"} & set(self.needs)
        no_keys = not of_images and bool(self.chance(context).isnan().any())
        return "no query has a key of that kind" if no_keys else ""

    def chance(self, context: ScoreContext) -> Tensor:
        """The score [image or 1] of a head with uniform attention."""
        of_images = [x for x in (context.coverage, context.content) if x is not None]
        images = len(of_images[0]) if of_images else 1
        return self(context.uniform.expand(images, 1, -1, -1), context)[:, 0]


def attention_share(key_weights: KeyWeights) -> Callable[[Tensor, ScoreContext], Tensor]:
    """A score's function: the share of attention that falls on some keys, mean over the queries that have such a key.

    Args:
        key_weights: context -> how much attention to each key counts, [image or 1, query or 1, key], from 0 to 1.
    """

    def share(pattern_BHQK: Tensor, context: ScoreContext) -> Tensor:
        weights_BQK = key_weights(context).to(pattern_BHQK)
        counted_BQ = ((context.uniform * weights_BQK).sum(-1) > 0) & context.queries
        share_BHQ = (pattern_BHQK * weights_BQK[:, None]).sum(-1)
        return (share_BHQ * counted_BQ[:, None]).sum(-1) / counted_BQ.sum(-1)[:, None]

    return share


def _to_role(name: str) -> KeyWeights:
    return lambda context: context.keys.role(name).to(context.uniform.device)[None, None]


def _to_places(chosen: Callable[[Tensor, Tensor, int, int], Tensor]) -> KeyWeights:
    """Attention to patches, chosen by row and column: `chosen(row, column, last row, last column)`."""

    def key_weights(context: ScoreContext) -> Tensor:
        _, row_T, column_T = context.keys.places()
        _, h, w = context.keys.grid
        return (chosen(row_T, column_T, h - 1, w - 1) & context.keys.role("patches")).to(context.uniform.device)[
            None, None
        ]

    return key_weights


def _to_related(related: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> KeyWeights:
    """Attention from patches to other patches: `related(dt, dr, dc, di)`, key minus query in time, row, ..."""

    def key_weights(context: ScoreContext) -> Tensor:
        index_T, patch_T = torch.arange(context.keys.n_tokens), context.keys.role("patches")
        steps = [x - x[:, None] for x in (*context.keys.places(), index_T)]
        return (related(*steps) & patch_T & patch_T[:, None] & (steps[3] != 0)).to(context.uniform.device)[None]

    return key_weights


def _to_object(context: ScoreContext) -> Tensor:
    assert context.coverage is not None
    return F.pad(context.coverage, (context.keys.n_prefix, 0))[:, None]


def _to_same_content(context: ScoreContext) -> Tensor:
    assert context.content is not None
    content_BT = F.pad(context.content, (context.keys.n_prefix, 0))
    same_BQK = (content_BT[:, None] == content_BT[:, :, None]) & (content_BT > 0)[:, None]
    return same_BQK & ~torch.eye(context.keys.n_tokens, dtype=torch.bool, device=content_BT.device)


def _sink(pattern_BHQK: Tensor, context: ScoreContext) -> Tensor:
    received_BHK = (pattern_BHQK * context.queries[:, None]).sum(2) / context.queries.sum()
    return received_BHK.amax(-1)


def entropy(pattern: Tensor, context: ScoreContext) -> Tensor:
    """Bits: 0 is attention to one token, log2(tokens) is attention to all alike; mean over queries."""
    bits = -(pattern * pattern.clamp(min=1e-30).log2()).sum(-1)
    return bits[..., context.queries].mean(-1)


ENTROPY = Score("entropy of attention, in bits", entropy)
"""Not among `SCORES`, because it is no share of attention."""

_QUERIES = ("tokens as queries",)

SCORES: Mapping[str, Score] = {
    "class_token": Score("attention to the class token", attention_share(_to_role("class")), ("a class token",)),
    "register": Score("attention to registers", attention_share(_to_role("registers")), ("registers",)),
    "sink": Score("attention to the key that receives the most, on average over queries", _sink),
    "corner": Score(
        "attention to the four corners of a frame",
        attention_share(
            _to_places(lambda r, c, last_r, last_c: ((r == 0) | (r == last_r)) & ((c == 0) | (c == last_c)))
        ),
    ),
    "edge": Score(
        "attention to the patches along the edge of a frame, corners included",
        attention_share(_to_places(lambda r, c, last_r, last_c: (r == 0) | (r == last_r) | (c == 0) | (c == last_c))),
    ),
    "row": Score(
        "attention of a patch to the other patches in its row, in its frame",
        attention_share(_to_related(lambda dt, dr, dc, di: (dt == 0) & (dr == 0))),
        _QUERIES,
    ),
    "column": Score(
        "attention of a patch to the other patches in its column, in its frame",
        attention_share(_to_related(lambda dt, dr, dc, di: (dt == 0) & (dc == 0))),
        _QUERIES,
    ),
    "neighbour": Score(
        "attention of a patch to the up to eight patches around it, in its frame",
        attention_share(_to_related(lambda dt, dr, dc, di: (dt == 0) & (dr.abs() <= 1) & (dc.abs() <= 1))),
        _QUERIES,
    ),
    "previous_patch": Score(
        "attention of a patch to the one before it in raster order, in its frame",
        attention_share(_to_related(lambda dt, dr, dc, di: (dt == 0) & (di == -1))),
        _QUERIES,
    ),
    "next_patch": Score(
        "attention of a patch to the one after it in raster order, in its frame",
        attention_share(_to_related(lambda dt, dr, dc, di: (dt == 0) & (di == 1))),
        _QUERIES,
    ),
    "place": Score(
        "attention of a patch to the patches at the same place in other frames",
        attention_share(_to_related(lambda dt, dr, dc, di: (dr == 0) & (dc == 0))),
        _QUERIES,
    ),
    "itself": Score(
        "attention of a token to itself",
        attention_share(lambda context: torch.eye(context.keys.n_tokens, device=context.uniform.device)[None]),
        _QUERIES,
    ),
    "object": Score(
        "attention to the object: each patch counts by the share that the object covers",
        attention_share(_to_object),
        ("masks",),
    ),
    "induction": Score(
        "attention of a patch with content to the other patches with the same content",
        attention_share(_to_same_content),
        ("content", *_QUERIES),
    ),
}
"""Name -> score. Where the model or the images lack what a score needs, it is refused if named and left out if not."""


def named_scores(scores: Mapping[str, Score] | str | Sequence[str]) -> Mapping[str, Score]:
    """The scores with these names; scores that are not names are returned as they are.

    Raises:
        PrismaError: no such score, or no score at all.
    """
    if not isinstance(scores, Mapping):
        scores = [scores] if isinstance(scores, str) else scores
        unknown = [name for name in scores if name not in SCORES]
        if unknown:
            raise PrismaError(f"expected scores among {', '.join(SCORES)}; found {unknown[0]!r}")
        scores = {name: SCORES[name] for name in scores}
    if not scores:
        raise PrismaError(f"expected at least one score among {', '.join(SCORES)}; found none")
    return scores


def expect_computable(scores: Mapping[str, Score], context: ScoreContext) -> None:
    """Raises PrismaError: the model or the images lack what a score needs."""
    for name, score in scores.items():
        if lack := score.missing(context):
            raise PrismaError(f"the score {name!r} cannot be computed here: {lack}")


def computable_scores(context: ScoreContext) -> Mapping[str, Score]:
    """The `SCORES` whose needs the model and the images meet."""
    return {name: score for name, score in SCORES.items() if not score.missing(context)}
