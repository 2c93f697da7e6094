"""Tasks: data that are made once, checked against their hash, and described for the model."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from prisma import PrismaError
from prisma.checkpoint import to_safetensors
from prisma.data import TASKS, known_task, package_task, task
from prisma.data.task import Split, coverage, data_hash
from prisma.data.transform import as_floats

SMALL = [name for name in TASKS if not name.startswith(("dsprites", "clevr-"))]  # the others have tests of their own


def test_tasks_by_name() -> None:
    assert set(SMALL) == {
        "digits", "pairs", "induction", "induction-polygenic", "circle", "sprites", "sprites-neutral", "clevr",
    }  # fmt: skip
    assert set(TASKS) - set(SMALL) == {
        *(f"dsprites{end}" for end in ("", "-scale", "-orientation", "-position", "-all", "-numbers")),
        *(f"clevr-{target}" for target in ("relation", "same")),
    }
    assert all(task(name).name == name for name in TASKS)
    with pytest.raises(PrismaError, match="there is no task 'digit'; the nearest: digits"):
        task("digit")


def test_no_place_is_looked_at_for_a_name_that_a_file_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prisma.data.task_at", lambda name: pytest.fail(name))
    assert known_task("circle-7").name == "circle-7" and package_task("digits") is TASKS["digits"]
    assert not known_task("mnist").is_here
    for name in (f"folder:{tmp_path}", "hub:lab/set"):
        with pytest.raises(PrismaError, match="there is no task"):
            known_task(name)
    for name in (f"folder:{tmp_path}", "hub:lab/set", "mnist", "imagenet"):
        with pytest.raises(PrismaError, match="expected a task whose data this package makes"):
            package_task(name)


@pytest.mark.parametrize("name", SMALL)
def test_images_labels_and_description_agree(name: str) -> None:
    chosen = task(name)
    for data in chosen.splits.values():
        n, channels, *size = data.images.shape
        assert data.images.dtype == (
            torch.bool if "poly" in name else torch.uint8 if name == "clevr" else torch.float32
        )
        assert data.labels.dtype == torch.int64
        assert data.labels.shape == (n,)
        assert 0 <= data.images.min() < data.images.max() <= (255 if name == "clevr" else 1)
        assert set(data.labels.tolist()) == set(range(len(chosen.labels)))
        assert data.masks is None or (data.masks.shape, data.masks.dtype) == ((n, *size), torch.bool)
        assert tuple(size) == chosen.transform.size
        assert channels == len(chosen.transform.mean) == len(chosen.transform.std)
    assert chosen.splits is chosen.splits
    assert chosen.summary.endswith(".")
    assert chosen.source


@pytest.mark.parametrize("name", SMALL)
def test_inputs_are_normalised_images(name: str) -> None:
    chosen = task(name)
    for split, data in chosen.splits.items():
        x, labels = chosen.inputs(split)
        for channel, (mean, std) in enumerate(zip(chosen.transform.mean, chosen.transform.std, strict=True)):
            back = (x[:, channel] * std).add_(mean)  # in place: of a large split each new tensor costs a second
            assert back.sub_(as_floats(data.images[:, channel])).abs_().max() < 1e-5
        assert torch.equal(labels, data.labels)
        few, their_labels = chosen.inputs(split, 5)
        assert torch.equal(few, x[:5]) and torch.equal(their_labels, labels[:5])


def first(data: Split, n: int) -> Split:
    return Split(data.images[:n], data.labels[:n], None if data.masks is None else data.masks[:n])


@pytest.mark.parametrize("name", SMALL)
def test_another_pixel_label_or_order_is_another_hash(name: str) -> None:
    chosen = task(name)
    train, test = (first(data, 50) for data in chosen.splits.values())
    expected = data_hash(train, test)
    brighter = train.images.clone()
    brighter[0, 0, 0, 0] = brighter[0, 0, 0, 0] == 0
    relabelled = train.labels.clone()
    relabelled[0] = (relabelled[0] + 1) % len(chosen.labels)
    for changed in (
        replace(train, images=brighter),
        replace(train, labels=relabelled),
        replace(train, images=train.images.flip(0)),
        replace(train, masks=None if train.masks is not None else train.images[:, 0].flip(0) > 0.5),
    ):
        assert data_hash(changed, test) != expected
    assert data_hash(test, train) != expected


def test_data_that_differ_are_refused_loudly() -> None:
    digits = task("digits")
    swapped = replace(digits, make=lambda: (digits.splits["test"], digits.splits["train"]))
    assert data_hash(digits.splits["train"], digits.splits["test"]) == digits.sha256
    with pytest.raises(
        PrismaError,
        match=rf"expected data of hash {digits.sha256} for the task digits; found [0-9a-f]{{64}}",
    ):
        _ = swapped.splits


@pytest.mark.parametrize("patch", [4, 7, (2, 14), 28, 1])
def test_coverage_is_the_share_of_each_patch(patch: int | tuple[int, int]) -> None:
    masks = task("sprites").splits["test"].masks
    assert masks is not None
    p, q = (patch, patch) if isinstance(patch, int) else patch
    covered = coverage(masks, patch)
    assert covered.shape == (len(masks), 28 // p, 28 // q)
    assert covered.min() >= 0 and covered.max() <= 1 and covered.dtype == torch.float32
    for i, row, column in ((0, 0, 0), (5, 28 // p - 1, 0), (17, 28 // p // 2, 28 // q // 2)):
        cut = masks[i, row * p : (row + 1) * p, column * q : (column + 1) * q]
        assert covered[i, row, column].item() == pytest.approx(cut.sum().item() / (p * q))
    torch.testing.assert_close(covered.sum((1, 2)) * p * q, masks.sum((1, 2)).float())


@pytest.mark.parametrize("shape", [(2, 28, 30), (2, 30, 28), (28, 28), (2, 1, 28, 28)])
def test_coverage_is_of_whole_patches(shape: tuple[int, ...]) -> None:
    with pytest.raises(PrismaError, match=r"expected masks .* of whole patches of 4x4; found"):
        coverage(torch.ones(shape, dtype=torch.bool), 4)


@pytest.mark.parametrize("name", [*SMALL, "circle-7"])
def test_every_task_says_its_licence_and_its_factors(name: str) -> None:
    data = task(name)
    assert data.license == ("cc-by-4.0" if name in ("digits", "pairs") else "mit")
    assert len({factor.name for factor in data.factors} - {"image", "label", "mask"}) == len(data.factors)
    assert bool(data.factors) == (name != "digits")
    assert all(factor.words and len(set(factor.values)) == len(factor.values) for factor in data.factors)


@pytest.mark.parametrize("own", [True, False])
def test_masks_that_equal_black_and_white_images_do_not_count(own: bool) -> None:
    """Wherever they are in memory: the same values have the same hash."""
    white = torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0)) > 0.5
    split = Split(white, torch.arange(5), white[:, 0] if own else white[:, 0].clone())
    assert data_hash(split) == data_hash(replace(split, masks=None)) != data_hash(replace(split, masks=~white[:, 0]))
    grey = replace(split, images=white.float())
    assert data_hash(grey) != data_hash(replace(grey, masks=None))


def test_bytes_and_floats_of_the_same_pixels_have_the_same_hash() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    split = Split(pixels, torch.zeros(1, dtype=torch.int64))
    assert data_hash(split) == data_hash(replace(split, images=pixels.float() / 255))


@pytest.mark.parametrize("name", [name for name in SMALL if task(name).kept])
def test_what_is_kept_is_what_would_be_made(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made once and then read, equal in everything; a file that is damaged, or another's, is made again."""
    monkeypatch.setenv("PRISMA_CACHE", str(tmp_path))
    made = replace(task(name)).splits
    file = tmp_path / "tasks" / f"{task(name).sha256}.safetensors"
    assert file.is_file()
    refused = replace(task(name), make=lambda: pytest.fail("it is kept"))
    for split, data in refused.splits.items():
        assert data.tensors().keys() == made[split].tensors().keys()
        assert all(torch.equal(x, made[split].tensors()[key]) for key, x in data.tensors().items())
    small = {split: Split(x.images[:5], x.labels[:5]) for split, x in made.items()}
    for wrong in (
        b"junk",
        to_safetensors({"train.images": torch.zeros(1)}, {}),
        to_safetensors({f"{split}.{key}": x for split, data in small.items() for key, x in data.tensors().items()}, {}),
    ):
        file.write_bytes(wrong)
        with pytest.raises(AssertionError, match="it is made"):
            _ = replace(task(name), make=made_again).splits


def made_again() -> tuple[Split, Split]:
    raise AssertionError("it is made")


def test_nothing_is_kept_where_the_cache_is_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRISMA_CACHE", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    circle = task("circle-7")
    assert data_hash(*replace(circle, kept=True).splits.values()) == circle.sha256
    assert not list(tmp_path.iterdir())


def test_the_mask_of_each_object() -> None:
    objects = torch.tensor([[[0, 1], [2, 2]], [[1, 1], [0, 0]]], dtype=torch.uint8)
    kinds = torch.tensor([[5, 3], [4, -1]])
    split = Split(torch.zeros(2, 1, 2, 2), torch.zeros(2, dtype=torch.int64), objects > 0, objects=objects, kinds=kinds)
    expected = [[[[0, 1], [0, 0]], [[0, 0], [1, 1]]], [[[1, 1], [0, 0]], [[0, 0], [0, 0]]]]
    assert split.object_masks().int().tolist() == expected
    assert torch.equal(replace(split, objects=None).object_masks(), (objects > 0)[:, None])
    assert data_hash(split) != data_hash(replace(split, objects=objects.flip(0)))
    assert data_hash(split) != data_hash(replace(split, kinds=kinds + 1))
    with pytest.raises(PrismaError, match="expected images with masks; found none"):
        replace(split, masks=None).object_masks()
