"""Passes: how large they are."""

import pytest

from prisma import PrismaError
from prisma.analysis.passes import PASS_BYTES, Units, pass_size
from tests.variants import model_of, tower_of


def test_a_pass_is_chosen_by_memory() -> None:
    small, deep = model_of("base"), model_of("base", d_model=1200, n_heads=12, image_size=48, patch_size=2)
    assert 1 <= pass_size(deep) < pass_size(small) <= 4096
    assert pass_size(deep) * deep.config.n_tokens * deep.config.d_model * 8 < PASS_BYTES
    assert pass_size(tower_of("base")) >= 1
    assert pass_size(small, 3) == 3
    with pytest.raises(PrismaError, match="batch must be at least 1; found 0"):
        pass_size(small, 0)


def test_units_are_heads_or_tokens_unless_told() -> None:
    model = model_of("base")
    assert Units(model, "attn.hook_z", None, None).axis == "head"
    assert Units(model, "resid_mid", None, None).axis == "token"
    assert Units(model, "mlp.post", "d_mlp", None).axis == "d_mlp"
