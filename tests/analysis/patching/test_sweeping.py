"""Passes: how large they are."""

import pytest
import torch

from prisma import PrismaError
from prisma.analysis.patching.sweeping import PASS_BYTES, Units, directed, donor_of, pass_size
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


def test_values_come_from_the_other_run() -> None:
    clean, corrupt = torch.zeros(2, 1), torch.ones(2, 1)
    for into, expected in {"clean": (clean, corrupt), "corrupt": (corrupt, clean)}.items():
        assert all(x is y for x, y in zip(directed(clean, corrupt, into), expected, strict=True))
    assert (donor_of("clean"), donor_of("corrupt")) == ("corrupt", "clean")
    with pytest.raises(PrismaError, match="into must be clean or corrupt; found 'both'"):
        directed(clean, corrupt, "both")
    with pytest.raises(PrismaError, match=r"pairs of one shape; found \[2, 1\] and \[1, 1\]"):
        directed(clean, corrupt[:1], "clean")
