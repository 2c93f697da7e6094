"""What a sweep patches, and where in a block it starts. That the runs are right: test_activation_patching."""

import pytest
import torch

from prisma import PrismaError
from prisma.analysis.patching.units import Units, chosen_units
from tests.variants import model_of


def test_units_are_heads_or_tokens_unless_told() -> None:
    model = model_of("base")
    assert Units(model, "attn.hook_z", None, None).axis == "head"
    assert Units(model, "resid_mid", None, None).axis == "token"
    assert Units(model, "mlp.post", "d_mlp", None).axis == "d_mlp"
    with pytest.raises(PrismaError, match="whole site, which cannot be grouped; found groups=2"):
        Units(model, "attn_out", "component", 2)


def test_masks_of_chosen_units_are_theirs() -> None:
    value = torch.zeros(5, 7, 3, 4)  # [pair, token, head, d_head]
    units = Units(model_of("base"), "attn.z", None, [[0, 2], [1], [2]])
    masks = units.masks(value)
    assert masks.shape == (3, 1, 3, 1) and masks[:, 0, :, 0].tolist() == [
        [True, False, True], [False, True, False], [False, False, True]
    ]  # fmt: skip
    cells = torch.tensor([[True, False, True], [False, False, False]])
    first, second = chosen_units(cells, 2, value.device)
    assert torch.equal(units.masks(value, first), masks[[0, 2]]) and not len(units.masks(value, second))
    assert chosen_units(None, 2, value.device) == [None, None]


@pytest.mark.parametrize("site", ["blocks.0.attn.z", "blocks.*.attn.z", "blocks.1.attn.hook_z"])
def test_a_site_with_the_number_of_a_block_is_named_as_it_was_written(site: str) -> None:
    with pytest.raises(PrismaError, match=r"^expected a site of every block, without its number, .*; found ") as error:
        Units(model_of("base"), site, None, None)
    assert str(error.value).endswith(f"found {site!r}")


def test_a_site_that_is_none_is_named_as_it_was_written() -> None:
    with pytest.raises(PrismaError, match=r"^no site of this model matches 'attn.x'; the nearest are attn\."):
        Units(model_of("base"), "attn.x", None, None)
    with pytest.raises(PrismaError, match=r"expected one site of every block, such as attn\.z; found 'attn\.\*'"):
        Units(model_of("base"), "attn.*", None, None)
