from pathlib import Path

import pytest
import torch
from torch.optim import AdamW

from prisma.errors import PrismaError
from prisma.train import Recipe
from prisma.train.loop import initial_model
from prisma.train.optimizer import make_optimizer
from prisma.train.state import load_state, save_state
from prisma.vit import ViT


def trained(recipe: Recipe, updates: int) -> tuple[ViT, AdamW]:
    model = initial_model(recipe.model, seed=0)
    optimizer = make_optimizer(model, recipe.training)
    for seed in range(updates):
        update(model, optimizer, seed)
    return model, optimizer


def update(model: ViT, optimizer: AdamW, seed: int) -> None:
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    model(images).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("updates", [0, 1, 3])
def test_the_next_update_is_bitwise_the_same_after_a_round_trip(tiny: Recipe, tmp_path: Path, updates: int) -> None:
    model, optimizer = trained(tiny, updates)
    save_state(tmp_path / "state", model, optimizer, updates, "run")
    other = initial_model(tiny.model, seed=9)
    fresh = make_optimizer(other, tiny.training)
    assert load_state(tmp_path / "state", other, fresh, "run") == updates
    update(model, optimizer, updates)
    update(other, fresh, updates)
    for (name, x), y in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(x, y), name


def test_the_bytes_depend_on_the_state_alone(tiny: Recipe, tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_state(tmp_path / name, *trained(tiny, 2), 2, "run")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_another_run_a_cut_file_and_none_are_refused(tiny: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "state"
    model, optimizer = trained(tiny, 1)
    with pytest.raises(PrismaError, match="found no such file"):
        load_state(path, model, optimizer, "run")
    save_state(path, model, optimizer, 1, "run")
    with pytest.raises(PrismaError, match=r"expected the state of run other in .*, found that of run"):
        load_state(path, model, optimizer, "other")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(PrismaError, match="truncated"):
        load_state(path, model, optimizer, "run")


def test_the_state_of_another_architecture_is_refused(tiny: Recipe, tmp_path: Path) -> None:
    model, optimizer = trained(tiny.override({"d_mlp": "0"}), 1)
    save_state(tmp_path / "state", model, optimizer, 1, "run")
    with pytest.raises(PrismaError, match=r"lacks weight\.blocks\.0\.ln2\.bias"):
        load_state(tmp_path / "state", *trained(tiny, 1), "run")
