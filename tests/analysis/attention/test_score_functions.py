"""Scores of heads against their definitions, said once more as rules about pairs of places."""

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor

from prisma import PrismaError, ViTConfig
from prisma.analysis.attention.score_functions import (
    SCORES,
    Score,
    ScoreContext,
    computable_scores,
    expect_computable,
    named_scores,
)
from prisma.analysis.attention.token_grid import TokenGrid, uniform_attention
from tests.variants import config_of

Token = tuple[str, int, int, int]  # role, time, row, column

GRIDS = {
    "registers": {"image_size": (6, 8)},
    "no_class_token": {"image_size": (4, 10)},
    "video": {"image_size": (4, 6)},
    "divided": {"image_size": (6, 4)},
    "one_column": {"image_size": (10, 2), "class_token": False, "pool": "mean"},
}


def tokens_of(config: ViTConfig) -> list[Token]:
    prefix = [("class", -9, -9, -9)] * config.class_token + [("register", -9, -9, -9)] * config.registers
    t, h, w = config.grid
    return prefix + [("patch", i, r, c) for i in range(t) for r in range(h) for c in range(w)]


def in_order(config: ViTConfig, patch: Token) -> int:
    return patch[2] * config.grid[2] + patch[3]


def at_edge(config: ViTConfig, key: Token) -> tuple[bool, bool]:
    """(at the top or bottom, at the left or right)."""
    return key[2] in (0, config.grid[1] - 1), key[3] in (0, config.grid[2] - 1)


def both_patches_of_a_frame(q: Token, k: Token) -> bool:
    return q[0] == k[0] == "patch" and q[1] == k[1] and q != k


RULES: Mapping[str, Callable[[ViTConfig, Token, Token], bool]] = {
    "class_token": lambda c, q, k: k[0] == "class",
    "register": lambda c, q, k: k[0] == "register",
    "corner": lambda c, q, k: k[0] == "patch" and all(at_edge(c, k)),
    "edge": lambda c, q, k: k[0] == "patch" and any(at_edge(c, k)),
    "row": lambda c, q, k: both_patches_of_a_frame(q, k) and q[2] == k[2],
    "column": lambda c, q, k: both_patches_of_a_frame(q, k) and q[3] == k[3],
    "neighbour": lambda c, q, k: both_patches_of_a_frame(q, k) and max(abs(q[2] - k[2]), abs(q[3] - k[3])) == 1,
    "previous_patch": lambda c, q, k: both_patches_of_a_frame(q, k) and in_order(c, k) == in_order(c, q) - 1,
    "next_patch": lambda c, q, k: both_patches_of_a_frame(q, k) and in_order(c, k) == in_order(c, q) + 1,
    "place": lambda c, q, k: q[0] == k[0] == "patch" and q[2:] == k[2:] and q[1] != k[1],
}


def context_of(config: ViTConfig, **parts: Tensor) -> ScoreContext:
    uniform = uniform_attention(config)
    keys = TokenGrid.of(config)
    return ScoreContext(keys=keys, uniform=uniform, queries=keys.role("all"), **parts)


def pattern_of(context: ScoreContext, images: int = 2, heads: int = 3) -> Tensor:
    """Random, over what can be seen."""
    weight = torch.rand(images, heads, *context.uniform.shape, dtype=torch.float64) * (context.uniform > 0)
    return weight / weight.sum(-1, keepdim=True)


@pytest.mark.parametrize("variant", GRIDS)
@pytest.mark.parametrize("name", RULES)
def test_a_score_is_the_share_that_goes_where_its_rule_says(name: str, variant: str) -> None:
    config = config_of("base" if variant == "one_column" else variant, **GRIDS[variant])
    context, tokens = context_of(config), tokens_of(config)
    pattern = pattern_of(context)
    seen = (context.uniform > 0).tolist()
    shares = []
    for q, query in enumerate(tokens):
        keys = [k for k, key in enumerate(tokens) if seen[q][k] and RULES[name](config, query, key)]
        if keys:
            shares.append((pattern[:, :, q, keys].sum(-1), len(keys)))
    if not shares:
        assert SCORES[name].missing(context)
        return
    assert not SCORES[name].missing(context)
    expected = sum(share for share, _ in shares) / len(shares)
    torch.testing.assert_close(SCORES[name](pattern, context), expected)
    if config.attention == "joint":
        chance = sum(n for _, n in shares) / len(shares) / len(tokens)
        assert SCORES[name].chance(context).item() == pytest.approx(chance)


def test_every_score_has_a_rule_here() -> None:
    assert set(SCORES) == {*RULES, "itself", "sink", "object", "induction"}


def test_itself_and_sink() -> None:
    context = context_of(config_of("registers"))
    pattern = pattern_of(context)
    torch.testing.assert_close(SCORES["itself"](pattern, context), pattern.diagonal(dim1=-2, dim2=-1).mean(-1))
    sums = [[max(sum(row[k] for row in head) / 13 for k in range(13)) for head in image] for image in pattern.tolist()]
    torch.testing.assert_close(SCORES["sink"](pattern, context), torch.tensor(sums, dtype=torch.float64))
    assert SCORES["sink"].chance(context).item() == pytest.approx(1 / 13)


def test_an_object_counts_by_its_share_of_each_patch() -> None:
    config = config_of("base", image_size=4)  # a class token and four patches
    coverage = torch.tensor([[0, 0.5, 1, 0], [0, 0, 0, 0]], dtype=torch.float64)
    context = context_of(config, coverage=coverage)
    pattern = pattern_of(context)
    score = SCORES["object"](pattern, context)
    torch.testing.assert_close(score[0], (pattern[0, ..., 2] / 2 + pattern[0, ..., 3]).mean(-1))
    assert score[1].isnan().all()  # no object, no answer
    assert SCORES["object"].chance(context)[0].item() == pytest.approx(1.5 / 5)


def test_induction_is_attention_to_the_same_content_elsewhere() -> None:
    config = config_of("base", image_size=4)
    context = context_of(config, content=torch.tensor([[7, 0, 7, 3], [0, 0, 1, 2]]))
    pattern = pattern_of(context)
    score = SCORES["induction"](pattern, context)
    torch.testing.assert_close(score[0], (pattern[0, :, 1, 3] + pattern[0, :, 3, 1]) / 2)
    assert score[1].isnan().all()  # nothing is there twice: blank patches are no content
    assert SCORES["induction"].chance(context)[0].item() == pytest.approx(1 / 5)


def test_only_the_queries_asked_about_count() -> None:
    config = config_of("registers")
    whole = context_of(config)
    context = ScoreContext(keys=whole.keys, uniform=whole.uniform, queries=whole.keys.role("class"))
    pattern = pattern_of(context)
    torch.testing.assert_close(SCORES["register"](pattern, context), pattern[:, :, 0, 1:4].sum(-1))
    torch.testing.assert_close(SCORES["sink"](pattern, context), pattern[:, :, 0].amax(-1))
    assert "no query" in SCORES["row"].missing(context)  # the class token has no row


def test_which_scores_there_are_here() -> None:
    image = computable_scores(context_of(config_of("no_class_token")))
    assert set(image) == {*SCORES} - {"class_token", "register", "place", "object", "induction"}
    video = computable_scores(context_of(config_of("divided")))
    assert set(video) == {*SCORES} - {"register", "place", "object", "induction"}
    own = {"mine": Score("attention to everything", lambda pattern, context: pattern.sum(-1).mean(-1))}
    assert named_scores(own) == own
    assert list(named_scores(["row", "edge"])) == ["row", "edge"]


def test_what_cannot_be_scored_is_refused() -> None:
    context = context_of(config_of("no_class_token"))
    refusals = {
        "class_token": "the score 'class_token' cannot be computed here: it needs a class token",
        "object": "it needs masks",
        "place": "no query has a key of that kind",
    }
    for name, words in refusals.items():
        with pytest.raises(PrismaError, match=words):
            expect_computable(named_scores([name]), context)
    with pytest.raises(PrismaError, match=r"expected scores among class_token, .*; found 'corners'"):
        named_scores(["corners"])
    with pytest.raises(PrismaError, match="expected at least one score"):
        named_scores([])
