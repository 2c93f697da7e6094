"""Analyses of attention on a GPU: what the CPU computes. Deselected by default; `make gpu` runs these."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from prisma import ViT
from prisma.analysis.attention.artifacts import artifacts
from prisma.analysis.attention.attention_flow import attention_flow
from prisma.analysis.attention.head_scores import head_scores
from prisma.analysis.attention.head_similarity import head_similarity
from prisma.analysis.attention.norm_weighted_attention import norm_weighted_attention
from prisma.analysis.attention.relevance import relevance
from prisma.analysis.attention.rollout import rollout
from prisma.analysis.result import Result
from tests.variants import images_of, model_of

pytestmark = pytest.mark.gpu

ANALYSES: dict[str, Callable[[ViT, Tensor], Result]] = {
    "artifacts": artifacts,
    "attention_flow": attention_flow,
    "head_scores": head_scores,
    "cka": lambda model, images: head_similarity(model, images, measure="cka"),
    "jensen_shannon": head_similarity,
    "norm_weighted_attention": norm_weighted_attention,
    "relevance": relevance,
    "rollout": rollout,
}


@pytest.mark.parametrize("variant", ["registers", "divided", "siglip", "sub_norms", "norm_res_post", "video"])
@pytest.mark.parametrize("name", ANALYSES)
def test_it_is_what_the_cpu_computes(name: str, variant: str) -> None:
    model, images = model_of(variant), images_of(model_of(variant))
    expected = ANALYSES[name](model, images).arrays
    found = ANALYSES[name](model.cuda(), images.cuda()).arrays
    for array, values in expected.items():
        torch.testing.assert_close(found[array], values, rtol=1e-8, atol=1e-8, equal_nan=True)
