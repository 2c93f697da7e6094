"""The small files of main are read within bounds, and contradictions between them are named."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prisma.errors import PrismaError
from prisma.publish.commits import FileRecord
from prisma.publish.folder_source import FolderSource
from prisma.publish.main_files import SMALL, Main, card_problem, content, number_problems, read_main, read_shape
from prisma.repository import MANIFEST, Published
from prisma.run_folder import METRICS
from prisma.train.loop import EVALUATED


@pytest.fixture
def main(hub: Path) -> Main:
    source, problems = FolderSource(Published("lab/tiny", hub)), list[str]()
    found = read_main(source, source.labels()["main"], problems)
    assert problems == []
    return found


def test_main_of_a_mouse_agrees_with_itself(main: Main) -> None:
    assert list(number_problems(main)) == []
    assert card_problem(main) is None
    assert main.task
    assert main.task.name == "digits"
    assert main.line(4)["step"] == 4
    assert main.line(99) == {}


def changed(values: Any, path: str, value: object) -> Any:
    """A copy with another value at a path such as training.lr."""
    copy = json.loads(json.dumps(values))
    inside, keys = copy, path.split(".")
    for key in keys[:-1]:
        inside = inside[int(key) if key.isdigit() else key]
    inside[int(keys[-1]) if keys[-1].isdigit() else keys[-1]] = value
    return copy


@pytest.mark.parametrize(
    ("file", "path", "value", "problem"),
    [
        ("results", "run", "other", "in results.json, as in recipe.json; found other"),
        ("results", "seeds.order", 5, "expected seeds {'init': 0, 'order': 0} in results.json"),
        ("results", "steps", 7, "expected metrics up to step 7, as in results.json; found step 6"),
        ("results", "parameters", 3, "expected 746 parameters in results.json; found 3"),
        ("results", "results.0.value", 0.5, "expected test accuracy 0.08333333333333333 in results.json"),
        (
            "results",
            "results.0.n",
            9,
            "expected 360 images of the split test in results.json, by recipe.json; found 9",
        ),
        ("recipe", "model.d_mlp", 16, "expected the architecture of recipe.json in config.json; found another"),
        ("recipe", "training.warmup", 2, "expected learning rate 0.001 at step 0, by recipe.json; found 0.0015"),
        ("recipe", "training.steps", 5, "expected a line for every step from 0 to 5 in metrics.jsonl; found others"),
        ("recipe", "training.steps", "5", "expected steps to be a whole number; found '5'"),
        ("recipe", "task.sha256", "0", "expected data of hash 3616d13d"),
        ("recipe", "training", None, "training of recipe.json"),
    ],
)
def test_a_contradiction_is_named(main: Main, file: str, path: str, value: object, problem: str) -> None:
    other = replace(main, **{file: changed(getattr(main, file), path, value)})
    assert any(problem in found for found in number_problems(other)), list(number_problems(other))


def test_of_a_large_split_only_the_first_images_are_evaluated(main: Main) -> None:
    other = replace(main, recipe=changed(main.recipe, "task.images.train", 24_000))
    problem = f"expected {EVALUATED} images of the split train in results.json, by recipe.json; found 1437"
    assert list(number_problems(other)) == [problem, problem]  # of its accuracy, and of its loss


def test_metrics_are_numbers(main: Main) -> None:
    other = replace(main, metrics=changed(main.metrics, "3.loss", "low"))
    assert list(number_problems(other)) == [
        "expected numbers for loss and lr on every line of metrics.jsonl; found others"
    ]


def test_a_task_that_cannot_be_built_is_left_out(main: Main) -> None:
    for name in ("my-own-pictures", 3, ["digits"], f"folder:{Path(__file__).parent}"):
        other = replace(main, recipe=changed(main.recipe, "task.name", name))
        assert other.task is None
        assert list(number_problems(other)) == []


def test_an_edited_card_is_shown_with_what_it_should_say(main: Main) -> None:
    assert main.card
    edited = replace(main, card=main.card.replace("# tiny", "# large"))
    assert "as its data renders ('# tiny'); found '# large': it was edited" in (card_problem(edited) or "")
    assert "found one that ends otherwise" in (card_problem(replace(main, card=main.card + "\nMore.\n")) or "")


def test_a_card_of_absurd_data_is_a_problem_and_no_crash(main: Main) -> None:
    for path, value in (("results.0.value", "x"), ("seeds", 3), ("command", {"a": ["b"] * 1000})):
        assert card_problem(replace(main, results=changed(main.results, path, value))) is not None


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda files: files.pop(METRICS), "expected a file metrics.jsonl; found none"),
        (lambda files: files.update({MANIFEST: FileRecord(MANIFEST, "a", 2**40, "b")}), "of at most 16,777,216 bytes"),
    ],
)
def test_what_is_absent_or_too_large_is_not_read(
    hub: Path, change: Callable[[dict[str, FileRecord]], object], problem: str
) -> None:
    source, problems = FolderSource(Published("lab/tiny", hub)), list[str]()
    commit = source.labels()["main"]
    change(source._read(commit)[0])
    read_main(source, commit, problems)
    assert len(problems) == 1
    assert problem in problems[0]


def test_every_small_file_has_a_bound() -> None:
    assert {name for name, size in SMALL.items() if size <= 2**30} == set(SMALL)


def test_a_config_is_read_without_weights(run: Path, tmp_path: Path) -> None:
    shape = read_shape(run / "config.json")
    assert {p.device.type for p in shape.model.parameters()} == {"meta"}
    assert sum(p.numel() for p in shape.model.parameters()) == 746
    assert content(shape) == content(read_shape(run / "config.json"))
    for text in ('{"model_type": "gpt2"}', "{}", '{"model_type": "prisma-vit", "transform": {}, "architecture": 3}'):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(PrismaError, match="expected"):
            read_shape(tmp_path / "config.json")
