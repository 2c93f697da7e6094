"""`prisma.train(model, task)`: the run is that of the same recipe, callbacks see every line, notebooks get curves."""

import inspect
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

import prisma
import prisma.train.loop
from prisma.checkpoint import read_checkpoint
from prisma.config import ViTConfig
from prisma.data import add, task
from prisma.data.task import Split, Task, data_hash
from prisma.data.transform import Transform
from prisma.errors import PrismaError
from prisma.files import read_json, sha256
from prisma.run_folder import read_metrics
from prisma.train import Recipe, Trained, notebook
from prisma.train.seeds import train_seeds
from tests.data.test_mnist import a_set

CONFIG = ViTConfig(image_size=8, patch_size=4, channels=1, n_layers=1, d_model=8, n_heads=2, d_mlp=8, n_classes=10)
SHORT: dict[str, Any] = {"steps": 6, "batch_size": 16}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prisma.train.finish.draw_curves", lambda *_: None)


@pytest.fixture(scope="module")
def own() -> Task:
    """A task of one's own: is the image bright?"""
    images = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = (images.mean((1, 2, 3)) > 0.5).long()
    train, test = Split(images[:40], labels[:40]), Split(images[40:], labels[40:])
    transform = Transform(size=(8, 8), mean=(0.5,), std=(0.5,))
    sha256 = data_hash(train, test)
    return Task("bright", "Is it bright?", "here", ("no", "yes"), transform, lambda: (train, test), sha256)


def test_the_package_is_a_function_and_a_module_whichever_comes_first() -> None:
    assert prisma.train is sys.modules["prisma.train"] and callable(prisma.train)
    assert prisma.train.loop is sys.modules["prisma.train.loop"] and inspect.isfunction(prisma.train.train)
    assert inspect.signature(prisma.train) == inspect.signature(notebook.train)
    vars(prisma).pop("train")  # as before anything imported the package
    assert prisma.train is sys.modules["prisma.train"] and "train" in dir(prisma)
    prisma.train = sys.modules["prisma.train"]


def test_the_run_is_that_of_the_recipe_and_callbacks_see_every_line(tmp_path: Path) -> None:
    steps, checkpoints = list[Mapping[str, Any]](), list[tuple[int, int]]()

    def kept(line: Mapping[str, Any], folder: Path) -> None:
        checkpoints.append((line["step"], int(read_checkpoint(folder).header["step"])))

    run = prisma.train(
        CONFIG, "digits", tmp_path / "a", on_step=steps.append, on_checkpoint=kept, device="cpu", **SHORT
    )
    assert isinstance(run, Trained) and run.metrics == read_metrics(run.out / "metrics.jsonl") == steps
    assert checkpoints == [(step, step) for step in (0, 1, 2, 4, 6)]
    assert [path.name for path in run.checkpoints] == [f"step-{step:06d}" for step in (0, 1, 2, 4, 6)]
    assert run.load(4).config == CONFIG and repr(run).startswith("Trained('") and "6 steps, test accuracy" in repr(run)
    recipe = read_json(run.out / "recipe.json")
    assert recipe["recipe"] == "digits" and recipe["training"]["warmup"] == 0 and "first_weights" not in recipe
    chosen = Recipe("digits", "digits", CONFIG, prisma.train.TrainConfig(**recipe["training"]))
    prisma.train.train(chosen, tmp_path / "b", device="cpu", progress=False)
    again = prisma.train(chosen, out=tmp_path / "c", device="cpu", live=False)
    for name in ("model.safetensors", "metrics.jsonl"):
        assert sha256(run.out / name) == sha256(tmp_path / "b" / name) == sha256(again.out / name)


def test_an_error_of_a_callback_ends_the_run_which_goes_on(tmp_path: Path) -> None:
    def stop(line: Mapping[str, Any]) -> None:
        if line["step"] == 3:
            raise KeyError("mine")

    whole = prisma.train(CONFIG, "digits", tmp_path / "whole", device="cpu", **SHORT)
    with pytest.raises(KeyError, match="mine"):
        prisma.train(CONFIG, "digits", tmp_path / "run", on_step=stop, device="cpu", **SHORT)
    run = prisma.train(CONFIG, "digits", tmp_path / "run", resume=True, device="cpu", **SHORT)
    assert sha256(run.out / "model.safetensors") == sha256(whole.out / "model.safetensors")


def test_a_model_is_where_training_begins_and_stays_as_it_is(tmp_path: Path) -> None:
    first = prisma.train(CONFIG, "digits", tmp_path / "first", device="cpu", **SHORT)
    model = first.load().model
    before = {name: x.clone() for name, x in model.state_dict().items()}
    more = prisma.train(model, "digits", tmp_path / "more", device="cpu", **SHORT)
    for name, x in more.load(0).model.state_dict().items():
        assert torch.equal(x, before[name]) and torch.equal(model.state_dict()[name], before[name])
    assert not torch.equal(more.load().model.readout.head.weight, before["readout.head.weight"])
    assert not any(p.requires_grad for p in model.parameters())
    assert more.results["run"] != first.results["run"]
    with pytest.raises(PrismaError, match="to have first_weights="):
        prisma.train(CONFIG, "digits", tmp_path / "more", resume=True, device="cpu", **SHORT)


def test_a_task_of_your_own_is_trained_alone_and_with_seeds(own: Task, tmp_path: Path) -> None:
    config = replace(CONFIG, n_classes=2)
    run = prisma.train(config, own, tmp_path / "run", device="cpu", steps=4)
    assert run.results["recipe"] == "bright" and task("bright") is own
    assert read_json(run.out / "recipe.json")["training"]["batch_size"] == 40  # there are no more
    chosen = Recipe(
        "bright", "bright", config, prisma.train.TrainConfig(**read_json(run.out / "recipe.json")["training"])
    )
    found = train_seeds(chosen, tmp_path / "seeds", (0, 1), device="cpu", progress=False)
    assert [result["seeds"]["init"] for result in found] == [0, 1]
    assert add(own) is own
    with pytest.raises(PrismaError, match="expected a new name for other data; found 'bright'"):
        add(replace(own, sha256="other"))
    with pytest.raises(PrismaError, match="expected a name that no task of the package has; found 'digits'"):
        add(replace(own, name="digits"))


@pytest.mark.parametrize(
    ("model", "of", "settings", "sentence"),
    [
        (CONFIG, "digit", {}, "there is no task 'digit'; the nearest: digits"),
        (CONFIG, None, {}, "expected a task, or its name; found None"),
        ("digits", "digits", {}, "expected a ViTConfig, a ViT, a Loaded or a Recipe to train; found 'digits'"),
        (CONFIG, "digits", {"steps": "10"}, "expected steps to be a whole number; found '10'"),
        (CONFIG, "digits", {"epochs": 3}, "expected settings among steps, batch_size, .*; found 'epochs'"),
        (CONFIG, "induction", {}, "expected the model's image_sides to be .* for the task induction; found"),
    ],
)
def test_what_does_not_fit_is_a_sentence(
    model: Any, of: str | None, settings: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(PrismaError, match=sentence):
        prisma.train(model, of, tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_a_notebook_gets_curves_while_it_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[str] = []
    handle = SimpleNamespace(update=lambda figure: shown.append(figure._repr_html_()))
    ipython, display = ModuleType("IPython"), ModuleType("IPython.display")
    ipython.get_ipython = lambda: SimpleNamespace(kernel=object())  # type: ignore[attr-defined]
    display.display = lambda figure, display_id: handle  # type: ignore[attr-defined]
    ipython.display = display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setattr("prisma.train.notebook.SHOWN_EVERY", 0.0)
    run = prisma.train(CONFIG, "digits", tmp_path / "run", device="cpu", **SHORT)
    assert len(shown) == 6 and "step 0:" in shown[0] and shown[-1] == run._repr_html_() and "<svg" in shown[-1]
    assert capsys.readouterr().err == ""


def test_a_task_by_the_place_of_its_data_keeps_its_place(tmp_path: Path) -> None:
    """The run is named after the task; the place stays in the recipe, which finds the data again."""
    a_set(tmp_path)
    model = ViTConfig(image_size=28, patch_size=14, channels=1, n_layers=1, d_model=8, n_heads=2, d_mlp=8, n_classes=10)
    made = notebook.recipe_of(model, f"mnist:{tmp_path}", {"steps": 20})
    assert (made.name, made.task, made.training.batch_size) == ("mnist", f"mnist:{tmp_path}", 30)


def test_what_load_returns_is_fine_tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prisma.train.finish.draw_curves", lambda *_: None)
    start = prisma.load("mice/digits")
    run = prisma.train(start, "digits", tmp_path / "run", steps=4, batch_size=8, trained="head", live=False)
    before, after = start.model.state_dict(), run.load().model.state_dict()
    assert {name for name, x in after.items() if not torch.equal(x, before[name])} == {
        "readout.head.weight",
        "readout.head.bias",
    }
