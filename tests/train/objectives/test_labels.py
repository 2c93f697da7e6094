"""Labels as answers: several classes are that many classifications, numbers are found where they are a linear map."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from prisma.checkpoint import read_checkpoint
from prisma.config import ViTConfig
from prisma.data import add, task
from prisma.data.task import Factor, Split, Task
from prisma.data.transform import Transform
from prisma.errors import PrismaError
from prisma.train import Recipe, TrainConfig, train
from prisma.train.objectives.labels import Classification, Several, Varying


def test_several_targets_are_separate_cross_entropies_and_accuracies() -> None:
    several, answer = (
        Several({"shape": tuple("abc"), "x": tuple("0123"), "y": tuple("01")}),
        torch.randn(50, 9).double(),
    )
    wanted = torch.stack([torch.randint(n, (50,)) for n in (3, 4, 2)], 1)
    assert several.names == ("shape a", "shape b", "shape c", "x 0", "x 1", "x 2", "x 3", "y 0", "y 1")
    assert several.measures == ("loss", "accuracy", "shape_accuracy", "x_accuracy", "y_accuracy")
    losses, shares = [], []
    for row, labels in zip(answer, wanted, strict=True):  # an image and a target at a time
        for start, end, label in ((0, 3, labels[0]), (3, 7, labels[1]), (7, 9, labels[2])):
            logits = row[start:end]
            losses.append(logits.exp().sum().log() - logits[label])
            shares.append(float(logits.argmax() == label))
    loss, accuracy, *each = several.measured(several.sums(answer, wanted).tolist(), 50)
    assert loss == pytest.approx(float(sum(losses)) / 150, rel=1e-12)
    assert several.loss(answer, wanted).item() == pytest.approx(loss, rel=1e-12)
    assert each == pytest.approx([sum(shares[i::3]) / 50 for i in range(3)], rel=1e-12)
    assert accuracy == pytest.approx(sum(each) / 3, rel=1e-12)


def test_one_target_is_classification() -> None:
    answer, labels = torch.randn(20, 4, dtype=torch.float64), torch.randint(4, (20,))
    one, plain = Several({"x": tuple("0123")}), Classification()
    assert one.loss(answer, labels[:, None]) == plain.loss(answer, labels) == F.cross_entropy(answer, labels)
    sums = plain.sums(answer, labels).tolist()
    assert one.measured(one.sums(answer, labels[:, None]).tolist(), 20) == (*plain.measured(sums, 20), sums[1] / 20)


@pytest.fixture(scope="module")
def planted() -> tuple[Task, torch.Tensor]:
    """Three numbers that are a linear map of the pixels, in units of their own; and the map of standardised numbers."""
    random = torch.Generator().manual_seed(0)
    images = torch.rand(600, 1, 3, 3, generator=random)
    weights = torch.randn(9, 3, generator=random)
    numbers = images.flatten(1) @ weights * torch.tensor([1.0, 100.0, 0.01]) + torch.tensor([0.0, 5.0, -3.0])
    names = ("first", "second", "third")
    whole = [
        Split(images[rows], torch.zeros(len(images[rows]), dtype=torch.long), factors=dict(zip(names, x, strict=True)))
        for rows in (slice(500), slice(500, None))
        for x in [numbers[rows].T]
    ]
    transform = Transform(size=(3, 3), mean=(0.5,), std=(0.3,))
    none = Task.of_splits("planted", *whole, labels=("none",), transform=transform, summary="A map.", source="here")
    data = add(replace(none, factors=tuple(Factor(name, name) for name in names), targets=names))
    return data, weights * torch.tensor([1.0, 100.0, 0.01]) * 0.3 / numbers[:500].std(0, correction=0)


def test_regression_recovers_a_planted_linear_map(planted: tuple[Task, torch.Tensor], tmp_path: Path) -> None:
    data, wanted = planted
    model = ViTConfig(
        image_size=3, patch_size=3, channels=1, n_layers=0, d_model=12, n_heads=1, d_mlp=0, n_classes=3,
        norm="none", class_token=False, positions=False, pool="mean",
    )  # fmt: skip
    training = TrainConfig(
        steps=600, batch_size=100, lr=3e-2, warmup=10, weight_decay=0.0, checkpoint_every=1000, objective="regression"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prisma.train.finish.draw_curves", lambda *_: None)
        results = train(Recipe("planted", data.name, model, training), tmp_path / "run", device="cpu", progress=False)
    found = {row["name"]: row["value"] for row in results["results"]}
    assert list(found) == ["test r2", "train r2", "test loss", "train loss"]
    assert found["test r2"] > 0.9999 and found["test loss"] < 1e-4
    checkpoint = read_checkpoint(tmp_path / "run")
    assert checkpoint.labels == ("first", "second", "third")
    map_ = checkpoint.model.embed.patch.weight.T @ checkpoint.model.readout.head.weight.T
    torch.testing.assert_close(map_, wanted, rtol=0.02, atol=0.01)


def test_numbers_are_standardised_by_the_training_images(recipes: Mapping[str, Recipe]) -> None:
    objective, data = recipes["regression"].objective, task("digits-numbers")
    found = objective.targets(data.splits["train"])
    torch.testing.assert_close(found.mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.std(0, correction=0), torch.ones(2), atol=1e-5, rtol=0)
    for i, name in enumerate(("ink", "digit")):
        raw, test = (data.splits[split].factors[name].double() for split in ("train", "test"))
        expected = (test - raw.mean()) / ((raw - raw.mean()) ** 2).mean().sqrt()
        torch.testing.assert_close(objective.targets(data.splits["test"])[:, i], expected.float())


@pytest.mark.parametrize(
    ("name", "objective", "sentence"),
    [
        ("several", "classification", "expected a task of one class for each image for the objective classification; "
         "found 'digits-parts, of the targets digit, parity'"),
        ("regression", "several", "each of classes for the objective several; found 'digits-numbers, "),
        ("masked", "regression", "expected a task with targets, whose values count as numbers for the objective reg"),
        ("masked", "varying", "expected a task with two targets or more, of which goals are sums, for"),
        ("masked", "several", "found 'digits, of one class for each image'"),
    ],
)  # fmt: skip
def test_a_task_of_another_kind_is_refused(
    recipes: Mapping[str, Recipe], name: str, objective: str, sentence: str
) -> None:
    with pytest.raises(PrismaError, match=sentence):
        recipes[name].override({"objective": objective})


def test_outputs_of_another_number_are_refused_with_the_objective(recipes: Mapping[str, Recipe]) -> None:
    with pytest.raises(PrismaError, match="n_classes to be 12 for the task digits-parts and the objective several; "):
        recipes["several"].override({"n_classes": "10"})
    wanted = "expected stop_on to name a loss or r2 for the objective regression; found test_accuracy"
    training = replace(recipes["regression"].training, patience=4, stop_on="test_accuracy")
    with pytest.raises(PrismaError, match=wanted):
        replace(recipes["regression"], training=training)


def test_a_goal_changes_every_so_many_steps_and_is_a_function_of_the_step(recipes: Mapping[str, Recipe]) -> None:
    objective = recipes["varying"].objective
    assert isinstance(objective, Varying) and objective.names == ("goal",)
    goals = [objective.goal(step) for step in range(6)]
    assert all(torch.equal(goals[step], goals[step - step % 2]) for step in range(6))
    assert len({tuple(goal.tolist()) for goal in goals}) == 3
    assert all(goal.norm().item() == pytest.approx(1) for goal in goals)
    images, targets = torch.zeros(5, 1, 8, 8), torch.randn(5, 2)
    (given,), wanted = objective.question(images, targets, objective.draws(5, 3))
    assert given is images
    torch.testing.assert_close(wanted, (targets @ goals[2])[:, None])
    assert torch.equal(objective.evaluation_draws(4), goals[5].expand(4, 2))
    steady = recipes["varying"].override({"goal_every": "0"}).objective
    assert isinstance(steady, Varying) and torch.equal(steady.goal(0), steady.goal(5))
    other = recipes["varying"].override({"order_seed": "1"}).objective
    assert isinstance(other, Varying) and not torch.equal(other.goal(0), goals[0])
