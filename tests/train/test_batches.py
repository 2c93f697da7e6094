"""A batch that is rebuilt is the one that the trainer fed to the model at that step."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from prisma.checkpoint import read_tensors
from prisma.data import task
from prisma.errors import PrismaError
from prisma.files import read_json, write_json
from prisma.ledger import Ledger
from prisma.recipes import recipe
from prisma.train import Recipe
from prisma.train.batches import batch_of, grid_of, rebuilt
from prisma.train.clock import Clock
from prisma.train.data_on import data_on
from prisma.train.initial import initial_model
from prisma.train.machine import pick_device
from prisma.train.optimizer import make_optimizer
from prisma.train.provenance import describe
from prisma.train.run import Run
from prisma.train.stacked import Stacked
from prisma.train.steps import Eager

SMALL = {"n_layers": "1", "d_model": "8", "n_heads": "2"}


def run_of(recipe: Recipe) -> Run:
    model, none = initial_model(recipe.model, 0), Path()
    images, inputs = data_on(recipe.task, "cpu", 50)
    optimizer = make_optimizer(model, recipe.training)
    return Run(recipe, "", none, model, optimizer, 0, images, inputs, Ledger(none), Clock(none, 0))


@pytest.mark.parametrize("name", ["digits", "induction", "circle", "sprites"])
@pytest.mark.parametrize("step", [0, 45])
def test_it_is_what_the_model_was_fed(name: str, step: int) -> None:
    chosen = recipe(name).override({**SMALL, "order_seed": "3"})
    run, fed = run_of(chosen), list[Tensor]()
    run.model.register_forward_pre_hook(lambda _, inputs: fed.append(inputs[0]))
    Eager(run).measure(step)
    found = rebuilt(describe(chosen, pick_device("cpu"), ""), step)
    assert torch.equal(found.inputs, fed[0])
    split = task(name).splits["train"]
    assert torch.equal(found.labels, split.labels[found.indices])
    assert found.names == tuple(task(name).labels[label] for label in found.labels.tolist())
    assert (found.moves is not None) == (name == "digits")
    if found.moves is None:
        assert torch.equal(found.images, split.images[found.indices].float())


def test_it_is_what_runs_side_by_side_were_fed(tiny: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    recipes = [tiny.override({"init_seed": str(seed), "order_seed": str(seed)}) for seed in (5, 6)]
    stacked, fed = Stacked([run_of(chosen) for chosen in recipes]), list[tuple[Tensor, Tensor]]()
    batches = Stacked._batches

    def noted(self: Stacked) -> tuple[Tensor, Tensor]:
        fed.append(batches(self))
        return fed[-1]

    monkeypatch.setattr(Stacked, "_batches", noted)
    stacked.advance(0, 50)
    for step in (0, 46):
        for i, chosen in enumerate(recipes):
            found = rebuilt(describe(chosen, pick_device("cpu"), ""), step)
            assert torch.equal(found.labels, fed[step][1][i])
            torch.testing.assert_close(found.inputs, fed[step][0][i], rtol=0, atol=1e-5)


def test_picture_and_tensors_hold_the_batch(whole: Path, tmp_path: Path) -> None:
    found = batch_of(whole, 64)
    picture, tensors = found.write(tmp_path / "b")
    assert [path.name for path in (picture, tensors)] == ["batch-000064.png", "batch-000064.safetensors"]
    read, header = read_tensors(tensors)
    assert header == {"run": read_json(whole / "recipe.json")["run"], "step": "64"}
    for name in ("indices", "labels", "moves", "images", "inputs"):
        assert torch.equal(read[name], getattr(found, name))
    pixels = np.asarray(Image.open(picture))
    assert np.array_equal(pixels, grid_of(found.images))
    side, gap = 64, 2  # 32 images of 8x8, eight times as large, in rows of six
    for i in (0, 7, 31):
        top, left = i // 6 * (side + gap), i % 6 * (side + gap)
        shown = pixels[top : top + side : 8, left : left + side : 8, 0]
        assert np.array_equal(shown, (found.images[i, 0] * 255).round().to(torch.uint8).numpy())
    assert pixels.shape == (6 * (side + gap) - gap, 6 * (side + gap) - gap, 3) and (pixels[-1, -1] == 255).all()
    told = json.loads(json.dumps(found.to_dict()))
    assert [row["index"] for row in told["images"]] == found.indices.tolist() and len(told["images"][0]["move"]) == 3


def test_what_has_no_batch_is_a_sentence(tiny: Recipe, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(PrismaError, match=r"expected a step from 0 to 70, the last of the run; found 71"):
        batch_of(whole, 71)
    with pytest.raises(PrismaError, match=r"expected a run folder, or OWNER/NAME .*; found no recipe\.json at"):
        batch_of(tmp_path, 0)
    (tmp_path / "seed-1").mkdir()
    recipe = describe(tiny, pick_device("cpu"), "")
    write_json(tmp_path / "seed-1" / "recipe.json", recipe)
    with pytest.raises(PrismaError, match=r"expected one run; found 1 of other seeds in .*: name .*seed-1"):
        batch_of(tmp_path, 0)
    with pytest.raises(PrismaError, match=r"expected data of hash ab for the task digits, as the run was trained on"):
        rebuilt({**recipe, "task": {"name": "digits", "sha256": "ab"}}, 0)
    with pytest.raises(PrismaError, match=r"expected the name of a task in recipe\.json; found None"):
        rebuilt({**recipe, "task": None}, 0)
    assert rebuilt(recipe, 70).step == 70
