import pytest
import torch

from prisma.analysis.patching.causal_tracing import causal_tracing
from prisma.editing.tracing import layer_by_tracing
from prisma.errors import PrismaError


def test_it_is_the_layer_of_the_largest_indirect_effect(digits) -> None:
    images, coverage = digits.test_images[:20], torch.zeros(20, 16)
    coverage[:, 5:11] = 1
    layer, effect = layer_by_tracing(digits.loaded.model, images, coverage, samples=2)
    traced = causal_tracing(digits.loaded.model, images, coverage, site="mlp_out", samples=2)
    assert torch.equal(effect, traced.effect[:, traced.metadata["units"].index("class")])
    assert layer == int(effect.argmax())
    with pytest.raises(PrismaError, match="a role: class, object, background; found 'patches'"):
        layer_by_tracing(digits.loaded.model, images, coverage, role="patches")
