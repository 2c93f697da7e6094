"""A table: every recipe is trained, and its row has both accuracies."""

from dataclasses import replace
from pathlib import Path

import pytest

from prisma.errors import PrismaError
from prisma.recipes import recipe
from prisma.recipes.tables import row_of, train_table
from prisma.train.loop import Job


def test_the_first_seed_of_all_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digits = recipe("digits").override({"steps": "4", "warmup": "1", "batch_size": "8"})
    two = tuple(replace(digits, name=name, published_accuracy=x) for name, x in (("low", 0.0), ("high", 1.0)))
    monkeypatch.setattr("prisma.recipes.tables.TABLES", {"t": two})
    monkeypatch.setattr("prisma.train.finish.draw_curves", lambda *_: None)
    trained: list[str] = []
    look = Job.is_finished

    def noted(job: Job, *place: object) -> bool:
        trained.append(f"{job.out.parent.name}/{job.out.name}: {job.command}")
        return look(job, *place)  # type: ignore[arg-type]

    monkeypatch.setattr(Job, "is_finished", noted)
    rows = list(train_table("t", tmp_path, (3, 5), device="cpu", progress=False))
    order = [("low", 3), ("high", 3), ("low", 5), ("high", 5)]
    assert trained == [
        f"{name}/seed-{seed}: prisma train {name} --set init_seed={seed} --set order_seed={seed}"
        for name, seed in order
    ]
    assert [(row["recipe"], row["seeds"]) for row in rows] == [("low", 1), ("high", 1), ("low", 2), ("high", 2)]
    assert [row["reached"] for row in rows] == [True, False, True, False]
    again = list(train_table("t", tmp_path, (3, 5), resume=True, device="cpu", progress=False))
    assert again == rows
    with pytest.raises(PrismaError, match="there is no table 'u'; the nearest: t"):
        next(train_table("u", tmp_path))


def test_a_row_compares_the_least_accuracy_as_it_is_rounded() -> None:
    chosen = replace(recipe("digits"), published_accuracy=1.0)

    def result(accuracy: float) -> dict[str, object]:
        rows = [{"name": "test accuracy", "value": accuracy, "split": "test", "n": 360}]
        return {"parameters": 5, "seconds": 2.5, "results": rows}

    row = row_of(chosen, [result(0.9996), result(1.0)])
    assert (row["accuracy"], row["least"], row["reached"]) == (pytest.approx(0.9998), 0.9996, True)
    assert (row["parameters"], row["seconds"], row["seeds"]) == (5, 5.0, 2)
    assert not row_of(chosen, [result(0.9994), result(1.0)])["reached"]
