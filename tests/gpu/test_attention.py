"""Analyses of attention on a GPU: what the CPU computes. Deselected by default; `make gpu` runs these."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from prisma import ViT
from prisma.analysis.artefacts import artefacts
from prisma.analysis.attention_flow import attention_flow
from prisma.analysis.head_finder import find_heads
from prisma.analysis.head_similarity import head_similarity
from prisma.analysis.norm_attention import norm_attention
from prisma.analysis.relevance import relevance
from prisma.analysis.result import Result
from prisma.analysis.rollout import rollout
from tests.variants import images_of, model_of

pytestmark = pytest.mark.gpu

ANALYSES: dict[str, Callable[[ViT, Tensor], Result]] = {
    "artefacts": artefacts,
    "attention_flow": attention_flow,
    "find_heads": find_heads,
    "cka": lambda model, images: head_similarity(model, images, measure="cka"),
    "jensen_shannon": head_similarity,
    "norm_attention": norm_attention,
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
