"""Estimates are those of the library; at its other sites, the same formula."""

from collections.abc import Callable

import pytest
import torch
from prisma_app.library import Scene
from prisma_app.views.patching.estimates import estimates, first_order, token_estimate
from prisma_app.views.patching.question import question_of

from prisma.analysis.circuits.attribution_patching import attribution_patching
from prisma.analysis.patching.activation_patching import activation_patching


@pytest.mark.parametrize("into", ["clean", "corrupt"])
def test_heads_and_tokens_are_attribution_patching(scene: Callable[..., Scene], into: str) -> None:
    question = question_of(scene(corrupt="3", into=into))
    found = attribution_patching(question.model, question.clean, question.corrupt, question.metric, into=into)
    heads, tokens = estimates(question)
    assert torch.equal(heads, found.effect)
    assert torch.equal(tokens, found.tokens[0])


@pytest.mark.parametrize("site", ["resid_pre", "attn_out", "mlp_out"])
def test_the_formula_is_the_librarys(scene: Callable[..., Scene], site: str) -> None:
    question = question_of(scene(site=site, into="corrupt"))
    torch.testing.assert_close(first_order(question), token_estimate(question))


def test_the_stream_after_a_block_is_that_before_the_next(scene: Callable[..., Scene]) -> None:
    before, after = (token_estimate(question_of(scene(site=site))) for site in ("resid_pre", "resid_post"))
    torch.testing.assert_close(after[:-1], before[1:])


def test_a_small_change_is_estimated_well(scene: Callable[..., Scene]) -> None:
    question = question_of(scene())
    near = question.clean + 1e-2 * (question.corrupt - question.clean)
    question = type(question)(**{**vars(question), "corrupt": near, "site": "resid_mid"})
    exact = activation_patching(question.model, question.clean, near, "resid_mid", question.metric, axis="token")
    torch.testing.assert_close(first_order(question), exact.change, rtol=0.1, atol=1e-3)
