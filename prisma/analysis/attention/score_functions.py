"""What a head looks at, as numbers: each score is the share of its attention that goes where the score looks.

    score = mean over queries of sum_k A[q, k] look[q, k]          look in [0, 1]

A query counts if it has somewhere to look: the first patch has none before it, and no part in `previous_patch`. A head
whose scores q k are all equal gives the chance level, which stands beside every score.

Sources: heads of Voita et al. 1905.09418 (position) and Elhage et al. 2021, Olsson et al. 2209.11895 (previous token,
induction), Caron et al. 2104.14294 (object), Darcet et al. 2309.16588 (registers), Xiao et al. 2309.17453 (sink), told
of patches.

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
class Scene:
    """What a score may know besides the pattern: where the tokens are, and what the images show there."""

    keys: TokenGrid  # the tokens that are looked at; they look, too, unless the only query is that of attention pooling
    uniform: Tensor  # [query, key], of a head that looks at all that it can see alike; in the type of the patterns
    asked: Tensor  # [query], boolean: the queries that are asked about
    coverage: Tensor | None = None  # [image, patch]: share of the patch that the object covers
    content: Tensor | None = None  # [image, patch], whole numbers: equal ones are equal content, 0 is no content

    @property
    def has(self) -> dict[str, bool]:
        """What a score may need -> whether it is here."""
        return {
            "a class token": self.keys.class_token,
            "registers": self.keys.registers > 0,
            "tokens as queries": len(self.uniform) == self.keys.n_tokens,
            "masks": self.coverage is not None,
            "content": self.content is not None,
        }


Look = Callable[[Scene], Tensor]
"""Where a score looks: [image or 1, query or 1, key], from 0 to 1."""


@dataclass(frozen=True)
class Score:
    """`score(pattern, scene)`: a number from 0 to 1 for each head of each image, NaN where an image has no answer."""

    what: str  # "attention to ..."
    function: Callable[[Tensor, Scene], Tensor]  # pattern [image, head, query, key], scene -> [image, head]
    needs: tuple[str, ...] = ()  # of `Scene.has`

    def __call__(self, pattern_BHQK: Tensor, scene: Scene) -> Tensor:
        return self.function(pattern_BHQK, scene)

    def lacks(self, scene: Scene) -> str:
        """What stands in the way of this score, in words; nothing if it can be computed."""
        lacking = [need for need in self.needs if not scene.has[need]]
        if lacking:
            return f"it needs {' and '.join(lacking)}"
        of_images = {"masks", "content"} & set(self.needs)
        nowhere = not of_images and bool(self.chance(scene).isnan().any())
        return "no query has anything of that kind to look at" if nowhere else ""

    def chance(self, scene: Scene) -> Tensor:
        """The score [image or 1] of a head that looks at all that it can see alike."""
        of_images = [x for x in (scene.coverage, scene.content) if x is not None]
        images = len(of_images[0]) if of_images else 1
        return self(scene.uniform.expand(images, 1, -1, -1), scene)[:, 0]


def looking(look: Look) -> Callable[[Tensor, Scene], Tensor]:
    """The share of attention that goes where `look` looks, mean over the queries that can look there."""

    def share(pattern_BHQK: Tensor, scene: Scene) -> Tensor:
        look_BQK = look(scene).to(pattern_BHQK)
        counted_BQ = ((scene.uniform * look_BQK).sum(-1) > 0) & scene.asked
        share_BHQ = (pattern_BHQK * look_BQK[:, None]).sum(-1)
        return (share_BHQ * counted_BQ[:, None]).sum(-1) / counted_BQ.sum(-1)[:, None]

    return share


def _to_role(name: str) -> Look:
    return lambda scene: scene.keys.role(name).to(scene.uniform.device)[None, None]


def _to_places(chosen: Callable[[Tensor, Tensor, int, int], Tensor]) -> Look:
    """To patches by row and column: `chosen(row, column, last row, last column)`."""

    def look(scene: Scene) -> Tensor:
        _, row_T, column_T = scene.keys.places()
        _, h, w = scene.keys.grid
        return (chosen(row_T, column_T, h - 1, w - 1) & scene.keys.role("patches")).to(scene.uniform.device)[None, None]

    return look


def _to_related(related: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> Look:
    """From patches to other patches: `related(dt, dr, dc, di)`, key minus query in time, row, column, raster index."""

    def look(scene: Scene) -> Tensor:
        index_T, patch_T = torch.arange(scene.keys.n_tokens), scene.keys.role("patches")
        steps = [x - x[:, None] for x in (*scene.keys.places(), index_T)]
        return (related(*steps) & patch_T & patch_T[:, None] & (steps[3] != 0)).to(scene.uniform.device)[None]

    return look


def _to_object(scene: Scene) -> Tensor:
    assert scene.coverage is not None
    return F.pad(scene.coverage, (scene.keys.n_prefix, 0))[:, None]


def _to_same_content(scene: Scene) -> Tensor:
    assert scene.content is not None
    content_BT = F.pad(scene.content, (scene.keys.n_prefix, 0))
    same_BQK = (content_BT[:, None] == content_BT[:, :, None]) & (content_BT > 0)[:, None]
    return same_BQK & ~torch.eye(scene.keys.n_tokens, dtype=torch.bool, device=content_BT.device)


def _sink(pattern_BHQK: Tensor, scene: Scene) -> Tensor:
    received_BHK = (pattern_BHQK * scene.asked[:, None]).sum(2) / scene.asked.sum()
    return received_BHK.amax(-1)


_QUERIES = ("tokens as queries",)

SCORES: Mapping[str, Score] = {
    "class_token": Score("attention to the class token", looking(_to_role("class")), ("a class token",)),
    "register": Score("attention to registers", looking(_to_role("registers")), ("registers",)),
    "sink": Score("attention to the one key that is given most, on average over queries", _sink),
    "corner": Score(
        "attention to the four corners of a frame",
        looking(_to_places(lambda r, c, last_r, last_c: ((r == 0) | (r == last_r)) & ((c == 0) | (c == last_c)))),
    ),
    "edge": Score(
        "attention to the patches along the edge of a frame, corners included",
        looking(_to_places(lambda r, c, last_r, last_c: (r == 0) | (r == last_r) | (c == 0) | (c == last_c))),
    ),
    "row": Score(
        "attention of a patch to the others of its row, in its frame",
        looking(_to_related(lambda dt, dr, dc, di: (dt == 0) & (dr == 0))),
        _QUERIES,
    ),
    "column": Score(
        "attention of a patch to the others of its column, in its frame",
        looking(_to_related(lambda dt, dr, dc, di: (dt == 0) & (dc == 0))),
        _QUERIES,
    ),
    "neighbour": Score(
        "attention of a patch to the up to eight patches around it, in its frame",
        looking(_to_related(lambda dt, dr, dc, di: (dt == 0) & (dr.abs() <= 1) & (dc.abs() <= 1))),
        _QUERIES,
    ),
    "previous_patch": Score(
        "attention of a patch to the one before it in raster order, in its frame",
        looking(_to_related(lambda dt, dr, dc, di: (dt == 0) & (di == -1))),
        _QUERIES,
    ),
    "next_patch": Score(
        "attention of a patch to the one after it in raster order, in its frame",
        looking(_to_related(lambda dt, dr, dc, di: (dt == 0) & (di == 1))),
        _QUERIES,
    ),
    "place": Score(
        "attention of a patch to those at its place in other frames",
        looking(_to_related(lambda dt, dr, dc, di: (dr == 0) & (dc == 0))),
        _QUERIES,
    ),
    "itself": Score(
        "attention of a token to itself",
        looking(lambda scene: torch.eye(scene.keys.n_tokens, device=scene.uniform.device)[None]),
        _QUERIES,
    ),
    "object": Score("attention to the object: its share of each patch counts", looking(_to_object), ("masks",)),
    "induction": Score(
        "attention of a patch with content to the other patches with the same content",
        looking(_to_same_content),
        ("content", *_QUERIES),
    ),
}
"""Name -> score. A score that needs what the model or the images lack is refused, or left out when none is named."""


def named_scores(scores: Mapping[str, Score] | str | Sequence[str]) -> Mapping[str, Score]:
    """The scores of these names, or those given.

    Raises:
        PrismaError: no such score, or none at all.
    """
    if not isinstance(scores, Mapping):
        scores = [scores] if isinstance(scores, str) else scores
        unknown = [name for name in scores if name not in SCORES]
        if unknown:
            raise PrismaError(f"expected scores of {', '.join(SCORES)}; found {unknown[0]!r}")
        scores = {name: SCORES[name] for name in scores}
    if not scores:
        raise PrismaError(f"expected at least one score of {', '.join(SCORES)}; found none")
    return scores


def expect_computable(scores: Mapping[str, Score], scene: Scene) -> None:
    """Raises PrismaError: the model or the images lack what a score needs."""
    for name, score in scores.items():
        if lack := score.lacks(scene):
            raise PrismaError(f"the score {name!r} cannot be computed here: {lack}")


def computable_scores(scene: Scene) -> Mapping[str, Score]:
    """All of `SCORES` that can be computed here."""
    return {name: score for name, score in SCORES.items() if not score.lacks(scene)}
