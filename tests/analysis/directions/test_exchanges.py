"""The search for a subspace: the same again for the same seed, and its answers are those of whole runs."""

import torch

import prisma
from prisma.analysis.directions.exchanges import Pairs
from prisma.analysis.directions.places import Place
from prisma.analysis.directions.subspaces import random_subspace
from tests.variants import images_of, model_of


def test_answers_are_those_of_whole_runs_and_a_search_repeats_itself() -> None:
    model = model_of("base").requires_grad_(False)
    images, sources, labels = images_of(model, 6), images_of(model, 6, 5), torch.arange(6) % 5
    pairs = Pairs(model, images, sources, Place.of(model, "blocks.0.resid_post", "class", None), None)
    basis = random_subspace(12, 3, torch.Generator().manual_seed(0))
    source = prisma.record(model, sources, "blocks.0.resid_post")[1]["blocks.0.resid_post"]

    def exchange(x: torch.Tensor) -> torch.Tensor:
        for image in range(len(x)):
            for direction in basis.T:
                x[image, 0] += ((source[image, 0] - x[image, 0]) @ direction) * direction
        return x

    expected = prisma.run(model, images, {"blocks.0.resid_post": exchange}).argmax(1) == labels
    assert torch.equal(pairs.answers(basis, labels), expected.to(torch.float64))
    found, again = (pairs.search(labels, 2, 5, 0.05, 4, 0) for _ in range(2))
    assert torch.equal(found[0], again[0]) and torch.equal(found[1], again[1])
    torch.testing.assert_close(found[0].mT @ found[0], torch.eye(2).double())
