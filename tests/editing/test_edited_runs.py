import torch

from prisma.editing.edited_runs import EditedRuns, block_of
from prisma.editing.weight_edit import LowRank, WeightEdit


def test_any_change_of_the_map_is_what_the_changed_weight_computes(digits) -> None:
    model, images = digits.loaded.model, digits.images[:9]
    runs = EditedRuns.of(model, images, 0)
    assert torch.allclose(runs.before, model(images), atol=1e-5)
    draw = torch.Generator().manual_seed(0)
    u, unit = torch.randn(128, 3, generator=draw).double(), torch.randn(3, 3, generator=draw).double()
    changes = torch.randn(3, 64, generator=draw) / 30
    part = LowRank.of(model, "blocks.0.mlp.out", u, changes.double().T @ unit)
    found = runs.logits(runs.responses(u, unit), changes)
    assert torch.allclose(found, WeightEdit((part,)).edited(model)(images), atol=1e-3)
    assert block_of(model, 0).mlp.out.weight.shape == (64, 128)
