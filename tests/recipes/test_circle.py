from dataclasses import replace
from pathlib import Path

from prisma.recipes import recipe
from prisma.train import train


def test_it_is_the_mouse_of_one_layer_with_an_mlp() -> None:
    circle = recipe("circle")
    assert (circle.name, circle.task) == ("circle", "circle")
    assert circle.model.n_layers == 1 and circle.model.d_mlp > 0
    assert circle.model.n_patches + circle.model.n_prefix == 5


def test_it_learns_another_modulus_by_heart_first(tmp_path: Path) -> None:
    """300 steps on the 18 training pairs of 9 numbers: all right there, and at chance on the others."""
    circle = recipe("circle")
    small = replace(circle, task="circle-9", model=replace(circle.model, n_classes=9))
    short = small.override({"steps": "300", "batch_size": "18"})
    results = train(short, tmp_path / "run", device="cpu", progress=False)["results"]
    found = {row["name"]: row["value"] for row in results}
    assert found["train accuracy"] == 1
    assert found["test accuracy"] < 0.5
