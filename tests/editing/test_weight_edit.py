import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers.pytorch_utils import Conv1D

from prisma.editing.weight_edit import LowRank, WeightEdit, source_of
from prisma.errors import PrismaError


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.ModuleDict({"linear": nn.Linear(5, 3), "conv": Conv1D(3, 5), "norm": nn.LayerNorm(3)})


def factors(rank: int = 2, scale: float = 1.0, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(5, rank, generator=generator), scale * torch.randn(3, rank, generator=generator)


def edit_of(model: nn.Module, *names: str, scale: float = 1.0, **about) -> WeightEdit:
    return WeightEdit(tuple(LowRank.of(model, name, *factors(scale=scale)) for name in names), about)


@pytest.mark.parametrize("name", ["linear", "conv"])
def test_the_answer_changes_by_v_times_u_dot_key_however_the_weight_is_stored(name: str) -> None:
    model, x = net(), torch.randn(4, 5)
    before, (u, v) = model[name](x), factors()
    with edit_of(model, name).apply(model):
        assert torch.allclose(model[name](x), before + x @ u @ v.T, atol=1e-5)
    assert torch.equal(model[name](x), before)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([1e-8, 1.0, 1e8]), st.sampled_from([torch.float32, torch.bfloat16, torch.float64]))
def test_undone_weights_are_bitwise_what_they_were_where_subtracting_is_not(scale: float, dtype: torch.dtype) -> None:
    model = net().to(dtype)
    with torch.no_grad():
        model["linear"].weight[0, 0] = -0.0
    kept = copy.deepcopy(model.state_dict())
    bits = {name: x.view(torch.uint8).clone() for name, x in kept.items()}
    applied = edit_of(model, "linear", "conv", scale=scale).apply(model)
    if scale == 1e8 and dtype != torch.float64:
        assert not torch.equal(model["conv"].weight - (model["conv"].weight - kept["conv.weight"]), kept["conv.weight"])
    applied.undo()
    applied.undo()
    assert all(torch.equal(x.view(torch.uint8), bits[name]) for name, x in model.state_dict().items())


def test_read_again_it_gives_the_same_bits(tmp_path) -> None:
    model = net()
    edit = edit_of(model, "linear", "conv", source="cat", n=3)
    edit.write(tmp_path / "edit.safetensors")
    again = WeightEdit.read(tmp_path / "edit.safetensors")
    assert dict(again.about) == {"source": "cat", "n": 3}
    one, other = edit.edited(model), again.edited(model)
    assert source_of(one) == source_of(other) != source_of(model)
    assert source_of(net()) == source_of(model)  # `edited` left it as it was
    again.write(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "edit.safetensors").read_bytes()


def test_a_bias_is_a_map_from_one_number() -> None:
    model = net()
    old = model["linear"].bias.detach().clone()
    LowRank.of(model, "linear.bias", torch.ones(1, 1), torch.tensor([[1.0], [2.0], [3.0]]))
    edit = WeightEdit((LowRank.of(model, "linear.bias", torch.ones(1, 1), torch.tensor([[1.0], [2.0], [3.0]])),))
    with edit.apply(model):
        assert torch.allclose(model["linear"].bias, old + torch.tensor([1.0, 2.0, 3.0]))
    assert torch.equal(model["linear"].bias, old)


def test_another_model_is_refused_and_stays_as_it_was() -> None:
    model, other = net(), net(1)
    edit = edit_of(model, "conv", "linear")
    with torch.no_grad():
        other["conv"].weight.copy_(model["conv"].weight)  # the first part would fit
    hashed = source_of(other)
    with pytest.raises(PrismaError, match=r"the weights that the edit was made for in linear.weight"):
        edit.apply(other)
    assert source_of(other) == hashed
    with pytest.raises(PrismaError, match="edited already"), edit.apply(model):
        edit.apply(model)
    other["linear"] = nn.Linear(4, 3)
    with pytest.raises(PrismaError, match=r"linear.weight of shape \[3, 5\].*found \[3, 4\]"):
        edit_of(model, "linear").apply(other)


def test_later_edits_are_undone_first() -> None:
    model = net()
    hashed = source_of(model)
    first = edit_of(model, "linear").apply(model)
    second = edit_of(model, "linear").apply(model)
    with pytest.raises(PrismaError, match=r"linear.weight as the edit left it; found that it changed since"):
        first.undo()
    second.undo()
    first.undo()
    assert source_of(model) == hashed


def test_weights_in_new_tensors_are_given_back() -> None:
    model = net()
    hashed = source_of(model)
    applied = edit_of(model, "linear").apply(model)
    model.load_state_dict({name: x.clone() for name, x in model.state_dict().items()}, assign=True)
    applied.undo()
    assert source_of(model) == hashed


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.load_state_dict(net(1).state_dict(), assign=True),
        lambda model: model.load_state_dict(net(1).state_dict()),
        lambda model: model.half(),
        lambda model: model.update({"linear": nn.Identity()}),
    ],
)
def test_weights_that_changed_since_the_edit_stay(change: Callable[[nn.Module], object]) -> None:
    model = net()
    applied = edit_of(model, "linear").apply(model)
    change(model)
    now = source_of(model)
    with pytest.raises(PrismaError, match=r"linear.weight as the edit left it; found that it changed since"):
        applied.undo()
    assert source_of(model) == now


def test_what_goes_wrong_within_an_edit_is_not_hidden() -> None:
    model = net()
    hashed = source_of(model)
    with pytest.raises(KeyError, match="mine"), edit_of(model, "linear").apply(model):
        raise KeyError("mine")
    assert source_of(model) == hashed
    with pytest.raises(KeyError, match="mine") as found, edit_of(model, "linear").apply(model):
        with torch.no_grad():
            model["linear"].weight += 1
        raise KeyError("mine")
    assert "not undone: expected linear.weight as the edit left it" in found.value.__notes__[0]
    with pytest.raises(PrismaError, match="changed since"), edit_of(net(2), "linear").apply(model := net(2)):
        model.load_state_dict(net(1).state_dict())


def test_weights_that_cannot_be_edited_are_named(tmp_path) -> None:
    model = net()
    with pytest.raises(PrismaError, match=r"found 'liner'; the nearest are linear.weight"):
        edit_of(model, "liner")
    with pytest.raises(PrismaError, match=r"found \[5, 2\] and \[3, 1\]"):
        LowRank.of(model, "linear", factors()[0], factors(1)[1])
    tied = nn.ModuleDict({"a": nn.Linear(5, 3), "b": nn.Linear(5, 3)})
    tied["b"].weight = tied["a"].weight
    with pytest.raises(PrismaError, match=r"a.weight, which is b.weight too"):
        edit_of(tied, "a")
    with pytest.raises(PrismaError, match=r"a linear map in table.weight; found a Embedding"):
        edit_of(nn.ModuleDict({"table": nn.Embedding(3, 5)}), "table")
    with pytest.raises(PrismaError, match="finite"):
        LowRank.of(model, "linear", factors()[0], factors()[1] / 0)
    with pytest.raises(PrismaError, match="one addition for each"):
        edit_of(model, "linear", "linear")
    (tmp_path / "x").write_bytes(b"{}")
    with pytest.raises(PrismaError, match="truncated or foreign"):
        WeightEdit.read(tmp_path / "x")
