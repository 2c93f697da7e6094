"""What a viewer gets of latents; tests/sparse/test_dashboard.py compares all of it with the latents."""

import torch

from prisma.sparse.latent_views import index_of, named, part_of
from prisma.sparse.latents import latents
from tests.app.unpack import unpack
from tests.sparse.test_coders import random_coder
from tests.variants import images_of, model_of


def test_outputs_have_names_only_where_the_names_fit() -> None:
    of = torch.zeros(2, 3)
    assert named(["a", "b", "c"], of) == ["a", "b", "c"]
    assert named(["a"], of) == ["output 0", "output 1", "output 2"] and named(["a"], None) == []


def test_the_largest_and_the_smallest_effects_are_told_in_order() -> None:
    model = model_of("base", torch.float32, n_classes=12)
    images, coder = images_of(model, 4), random_coder("topk", 12, 6, 3, 1, sites=("blocks.0.attn.z",)).float()
    found = latents(coder, model, images, top=2)
    assert found.effect is not None
    j = int((~found.dead).nonzero()[0, 0])
    outputs = named((), found.effect)
    facts, arrays = unpack(part_of(found, range(j, j + 1), outputs, [], list("abcd")).pack())
    order = found.effect[j].argsort(descending=True, stable=True).tolist()
    told = [name for name, _ in facts["latents"][0]["effects"]]
    assert told == [f"output {i}" for i in (*order[:4], *order[-4:])] and facts["latents"][0]["classes"] == []
    assert arrays["maps"].shape == (1, 2, 10)
    facts, arrays = index_of(found, coder, "x", outputs, [], {})
    assert facts["effects"] and "class" not in arrays and facts["classes"] == []
