"""Scores of heads as the app shows them: those of `prisma.head_scores`, and two that are no shares of attention.

Shapes: B image, H head, Q query, K key.
"""

from collections.abc import Mapping, Sequence
from inspect import getsource

import torch
from torch import Tensor

from prisma.analysis.attention.head_scores import HeadScores, head_scores, pixel_content
from prisma.analysis.attention.score_functions import ENTROPY, SCORES, Score, ScoreContext, computable_scores
from prisma.analysis.attention.token_grid import TokenGrid, uniform_attention
from prisma.config import ViTConfig
from prisma.vit import ViT


def distance(pattern: Tensor, context: ScoreContext) -> Tensor:
    """Patches between a patch and those that it attends to, weighted by attention to patches; mean over patches."""
    first = context.keys.n_prefix
    _, row, column = (place[first:].to(pattern) for place in context.keys.places())
    apart = ((row[:, None] - row) ** 2 + (column[:, None] - column) ** 2).sqrt()
    weights = pattern[..., first:, first:]
    return ((weights * apart).sum(-1) / weights.sum(-1).clamp(min=1e-30)).mean(-1)


OWN: Mapping[str, Score] = {
    "entropy": ENTROPY,
    "distance": Score("mean distance that a patch attends over, in patches", distance),
}


def scores_of(model: ViT, images: Tensor) -> HeadScores:
    """Every score that the model and these images allow."""
    return head_scores(model, images, {**OWN, **_computable(model.config, images)})


def described(result: HeadScores) -> list[dict[str, object]]:
    """What each score is, its value for uniform attention, and whether it is a share of attention."""
    known = {**OWN, **SCORES}
    chance = result.chance.nanmean(0).tolist()
    return [
        {"name": name, "about": known[name].description, "chance": value, "share": name not in OWN}
        for name, value in zip(result.names["score"], chance, strict=True)
    ]


def appears(values: Tensor, steps: Sequence[int]) -> Tensor:
    """The first step at which each number [step, ...] has reached half of its last value."""
    first = (values >= values[-1] / 2).int().argmax(0)
    return torch.tensor(steps, device=values.device)[first]


def scores_code(names: Sequence[str]) -> str:
    """The Python that defines `scores`, for `prisma.head_scores(model, images, scores)`."""
    functions = "\n\n".join(getsource(score.function) for score in OWN.values())
    own = "".join(f"    {name!r}: Score({score.description!r}, {name}),\n" for name, score in OWN.items())
    library = [name for name in names if name not in OWN]
    return f"{functions}\n\nscores = {{\n{own}    **{{name: SCORES[name] for name in {library!r}}},\n}}\n"


SCORES_IMPORTS = (
    "import torch",
    "from torch import Tensor",
    "from prisma.analysis.attention.score_functions import SCORES, Score, ScoreContext",
)


def _computable(config: ViTConfig, images: Tensor) -> Mapping[str, Score]:
    """Without those that no image has keys for: induction needs two patches that look the same."""
    context = ScoreContext(
        keys=TokenGrid.of(config),
        uniform=uniform_attention(config),
        queries=torch.ones(config.n_tokens, dtype=torch.bool),
        content=pixel_content(config, images),
    )
    scores = computable_scores(context)
    return {name: score for name, score in scores.items() if score.chance(context).isfinite().any()}
