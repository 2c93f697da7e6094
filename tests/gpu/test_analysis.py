"""The causal analyses on a GPU find what they find on the CPU."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from prisma import LogitDiff, ViT
from prisma.analysis.attribution.direct_logit_attribution import direct_logit_attribution
from prisma.analysis.circuits.attribution_patching import attribute_nodes_and_edges
from prisma.analysis.circuits.circuit_discovery import circuit_discovery
from prisma.analysis.circuits.head_graph import head_graph
from prisma.analysis.circuits.path_patching import path_patching
from prisma.analysis.lens.logit_lens import logit_lens
from prisma.analysis.patching.ablation import ablation
from prisma.analysis.patching.activation_patching import activation_patching, patch_sets
from prisma.analysis.patching.causal_tracing import causal_tracing
from prisma.analysis.result import Result
from prisma.analysis.weights.composition import composition
from tests.variants import images_of, model_of

pytestmark = pytest.mark.gpu
METRIC = LogitDiff(0, 1)
Analysis = Callable[[ViT, Tensor, Tensor], Result]


def covered(model: ViT, images: Tensor) -> Tensor:
    """The first half of the patches is the object."""
    coverage = torch.zeros(len(images), model.config.n_patches, device=images.device)
    coverage[:, : model.config.n_patches // 2] = 1
    return coverage


ANALYSES: dict[str, Analysis] = {
    "patching": lambda m, x, y: activation_patching(m, x, y, "attn.z", METRIC, batch=4),
    "tokens": lambda m, x, y: activation_patching(m, x, y, "resid_mid", METRIC),
    "sets": lambda m, x, y: patch_sets(m, x, y, {"one": {"blocks.0.attn.z": {"head": 1}}}, METRIC),
    "ablation": lambda m, x, y: ablation(m, x, "attn.z", METRIC, by="mean", reference=y),
    "paths": lambda m, x, y: path_patching(m, x, y, METRIC),
    "head_graph": lambda m, x, y: head_graph(m, x, y, METRIC),
    "attribution": lambda m, x, y: attribute_nodes_and_edges(m, x, y, METRIC)[0],
    "edges": lambda m, x, y: attribute_nodes_and_edges(m, x, y, METRIC, steps=3)[1],
    "circuit": lambda m, x, y: circuit_discovery(m, x, y, METRIC, n=8),
    "direct attribution": lambda m, x, y: direct_logit_attribution(m, x, METRIC),
    "lens": lambda m, x, y: logit_lens(m, x),
    "composition": lambda m, x, y: composition(m, of=("v",)),
    "tracing": lambda m, x, y: causal_tracing(m, x, covered(m, x), metric=METRIC, scale=0.0, samples=2),
}


@pytest.mark.filterwarnings("ignore:expected pairs that agree on the total effect")  # these images are random
@pytest.mark.parametrize("variant", ["base", "dino", "divided", "everything_post"])
@pytest.mark.parametrize("name", ANALYSES)
def test_a_gpu_finds_the_same(name: str, variant: str) -> None:
    model = model_of(variant)
    clean, corrupt = images_of(model, 3, seed=1), images_of(model, 3, seed=2)
    expected = ANALYSES[name](model, clean, corrupt).arrays
    found: dict[str, Any] = ANALYSES[name](model.cuda(), clean.cuda(), corrupt.cuda()).arrays
    assert found.keys() == expected.keys()
    for array, values in expected.items():
        torch.testing.assert_close(found[array], values, rtol=1e-7, atol=1e-7, equal_nan=True)
