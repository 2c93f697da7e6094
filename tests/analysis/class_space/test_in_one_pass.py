"""Several analyses in one run of the model: each is what it is alone."""

import pytest
import torch

import prisma
from prisma import PrismaError
from prisma.analysis.class_space.in_one_pass import ANALYSES, in_one_pass
from tests.variants import images_of, model_of


def test_each_is_what_it_is_alone_and_the_model_runs_once() -> None:
    model = model_of("base")
    images, labels, masks = images_of(model, 5), torch.tensor([0, 3, 1, 4, 4]), torch.zeros(5, 3, 3)
    masks[:, 0] = 1
    runs = []
    handle = model.embed.register_forward_hook(lambda *_: runs.append(1))
    found = in_one_pass(model, images, labels, masks=masks, batch=2)
    handle.remove()
    assert len(runs) == 3 and list(found) == list(ANALYSES)
    alone = {
        "class_identifiability": prisma.class_identifiability(model, images, labels, masks=masks),
        "class_similarity_change": prisma.class_similarity_change(model, images, labels, masks=masks),
        **{f"memories of {site}": prisma.memories(model, images, labels, site=site) for site in ("mlp", "attn")},
    }
    for name, result in alone.items():
        assert type(found[name]) is type(result) and found[name].metadata == result.metadata
        for array, x in result.arrays.items():
            torch.testing.assert_close(found[name].arrays[array], x, equal_nan=True)


def test_an_analysis_that_it_does_not_know() -> None:
    model = model_of("base")
    for names in ([], ["rollout"], "class_identifiability"):
        with pytest.raises(
            PrismaError, match=r"expected analyses, several of class_identifiability, .*; found .{2,25}$"
        ):
            in_one_pass(model, images_of(model), torch.tensor([0, 1]), analyses=names)
