"""Causal tracing computes no block twice. That its numbers are right: test_causal_tracing."""

from prisma.analysis.patching.causal_tracing import causal_tracing
from prisma.attention import Attention
from prisma.inventory import site_names
from tests.analysis.patching.test_causal_tracing import objects
from tests.counting import counting
from tests.variants import images_of, model_of


def test_blocks_are_computed_from_the_window_on() -> None:
    """L blocks for the clean logits, the clean states and the corrupt rows; then those after each restored unit."""
    model = model_of("base", n_layers=4)
    images, chosen = images_of(model, 3), objects(model, 3)
    site_names(model.config)
    with counting(Attention) as rows:
        causal_tracing(model, images, chosen, samples=2)
    assert sum(rows) == 4 * (3 + 3 + 6) + 3 * 6 * (3 + 2 + 1 + 0)
