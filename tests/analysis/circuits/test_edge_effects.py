"""Effects of edges, as edges between parts and between latents have them."""

import torch

from prisma.analysis.circuits.edge_attribution import EdgeAttribution
from prisma.analysis.circuits.edge_effects import EdgeEffects
from prisma.analysis.circuits.graph import largest_places
from prisma.sparse.latent_edges import LatentEdges


def test_they_are_means_over_pairs_and_the_largest_come_first() -> None:
    values = torch.tensor([[[1.0, -6.0, 0.0], [2.0, 3.0, -5.0]], [[3.0, -2.0, 0.0], [0.0, 3.0, -5.0]]])
    more = {"clean": torch.ones(2), "corrupt": torch.zeros(2)}
    found = EdgeEffects(metadata={"into": "clean"}, values=values, **more)
    assert found.effect.tolist() == [[2, -4, 0], [1, 3, -5]]
    assert largest_places(found.effect, 3) == [(1, 2, -5.0), (0, 1, -4.0), (1, 1, 3.0)]
    parts = EdgeAttribution(metadata={"senders": ["a", "b"], "receivers": ["c", "d", "e"]}, values=values, **more)
    assert parts.top(2) == [(("b", "e"), -5.0), (("a", "d"), -4.0)]
    latents = LatentEdges(metadata={"sites": ["x", "y"], "receivers": [7, 2, None]}, values=values, **more)
    assert latents.top(2) == [((("x", None), ("y", None)), -5.0), ((("x", 0), ("y", 2)), -4.0)]
    assert EdgeEffects.AXES == LatentEdges.AXES == EdgeAttribution.AXES
