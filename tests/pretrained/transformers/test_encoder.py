"""The parts that transformers' image encoders share; parity of every class is in test_images.py."""

from types import SimpleNamespace

import torch
from transformers.models.aimv2.modeling_aimv2 import build_2d_sinusoidal_position_embedding

from prisma.pretrained.transformers.encoder import positions
from tests.pretrained.transformers.cases_images import CASES


def test_sinusoids_are_those_of_the_source() -> None:
    """Columns before rows, against the source's order."""
    weight = torch.empty(8, dtype=torch.float64)
    config = SimpleNamespace(image_size=(6, 4), patch_size=2, is_native=True, hidden_size=8)
    found = positions(SimpleNamespace(patch_embed=SimpleNamespace(weight=weight)), config)
    theirs = build_2d_sinusoidal_position_embedding(3, 2, 8, dtype=torch.float64)
    assert found is not None
    torch.testing.assert_close(found[0], theirs.roll(4, 1), rtol=0, atol=1e-15)


def test_positions_stay_the_very_tensor_where_nothing_is_resampled() -> None:
    for name in ("vit", "dinov2", "ijepa", "deit"):
        module = CASES[name]()
        found = positions(module.embeddings, module.config)
        assert found is module.embeddings.position_embeddings
