"""Scores of maps against masks: those of scikit-learn, and those of loops."""

import json
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

import prisma
from prisma import PrismaError
from prisma.analysis.lens.segmentation import lens_segmentation, segmentation
from prisma.data import task
from prisma.data.task import coverage
from tests.variants import images_of, model_of


def random_maps(ties: bool = True) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(6, 3, 4, 5, generator=generator)
    share = torch.rand(6, 4, 5, generator=generator) * 1.6 - 0.6
    return (maps * 2).round() if ties else maps, share.clamp(0, 1)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("threshold", ["mean", 0.5])
def test_scores_are_those_of_loops_and_of_scikit_learn(ties: bool, threshold: str | float) -> None:
    from sklearn.metrics import average_precision_score, jaccard_score, roc_auc_score

    maps, share = random_maps(ties)
    found = segmentation(maps, share, threshold=threshold)
    for image, stage in product(range(6), range(3)):
        scores, covered = maps[image, stage].flatten().tolist(), share[image].flatten().tolist()
        level = sum(scores) / len(scores) if threshold == "mean" else threshold
        kept = [(s, c >= 0.5) for s, c in zip(scores, covered, strict=True) if c >= 0.5 or c == 0]
        map_, truth = [s for s, _ in kept], [t for _, t in kept]
        said = [s > level for s in map_]
        ious = [jaccard_score(truth, said, pos_label=side) for side in (True, False)]
        expected = {
            "iou": ious[0],
            "mean_iou": sum(ious) / 2,
            "accuracy": sum(s == t for s, t in zip(said, truth, strict=True)) / len(truth),
            "average_precision": average_precision_score(truth, map_),
            "auroc": roc_auc_score(truth, map_),
        }
        for name, value in expected.items():
            assert getattr(found, name)[image, stage].item() == pytest.approx(value, abs=1e-6), name


def test_the_mask_itself_scores_one_and_its_inverse_nothing() -> None:
    share = torch.tensor([[[1.0, 0.5, 0.3], [0.0, 0.0, 0.1]]])
    good, bad = (segmentation(maps[:, None], share, threshold=0.4) for maps in (share, 1 - share))
    assert all(scores.item() == 1 for scores in good.arrays.values())
    assert [bad.arrays[name].item() for name in ("iou", "accuracy", "auroc")] == [1 / 4, 1 / 4, 0]  # 0.5 is above 0.4
    assert bad.mean_iou.item() == 1 / 8


def test_mixed_patches_are_not_scored() -> None:
    maps, share = random_maps()
    mixed = (share > 0) & (share < 0.5)
    assert mixed.any()
    other = torch.where(mixed[:, None], maps + 100, maps)
    for name, scores in segmentation(maps, share, threshold=0.0).arrays.items():
        assert torch.equal(scores, segmentation(other, share, threshold=0.0).arrays[name])


def test_an_image_without_object_has_no_score_that_needs_one() -> None:
    maps, share = (
        torch.rand(3, 2, 2, 2),
        torch.tensor([[[0.0, 0.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]], [[0, 0], [1, 1]]]),
    )
    found = segmentation(maps, share)
    assert found.auroc.isnan()[:, 0].tolist() == [True, True, False]
    assert found.average_precision.isnan()[:, 0].tolist() == [True, False, False]
    assert found.accuracy.isfinite().all()
    torch.testing.assert_close(found.means()["auroc"], found.auroc[2])
    assert found.means()["auroc"].shape == (2,)


def test_video_has_a_mask_for_each_frame() -> None:
    model = model_of("video")
    images = images_of(model, n=3)
    share = torch.rand(3, *model.config.grid, generator=torch.Generator().manual_seed(0))
    found = lens_segmentation(model, images, (share > 0.5).float(), 2)
    assert found.iou.shape == (3, 3)
    with pytest.raises(PrismaError, match=r"found \[3, 3, 2, 2, 2\] and \[3, 2, 2\]"):
        lens_segmentation(model, images, share[:, 0], 2)


def test_a_planted_patch_is_found() -> None:
    """No layers, no norm: a bright patch is the class."""
    model = model_of("no_layers", norm="none", class_token=False, pool="mean", positions=False)
    with torch.no_grad():
        model.embed.patch.bias.zero_()
        model.embed.patch.weight.copy_(model.readout.head.weight[2][:, None].expand(-1, 8))
    images = torch.zeros(3, *model.config.input_shape, dtype=torch.float64)
    share = torch.zeros(3, 3, 3)
    for i, (row, column) in enumerate([(0, 2), (1, 1), (2, 0)]):
        images[i, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = 1
        share[i, row, column] = 1
    found = lens_segmentation(model, images, share, 2)
    assert all((scores == 1).all() for scores in found.arrays.values())


def test_the_sprites_mouse_keeps_the_class_in_the_background() -> None:
    """As the docstring says, and more at each stage: what is readable at a patch is not what stands there."""
    mouse, sprites = prisma.load("mice/sprites").model, task("sprites")
    images, labels = sprites.inputs("test", 100)
    masks = sprites.splits["test"].masks
    assert masks is not None
    auroc = lens_segmentation(mouse, images, coverage(masks[:100], 4), labels).means()["auroc"]
    assert 0.4 < auroc[0] < 0.55
    assert auroc[-1] < 0.2


def test_scores_are_a_result_with_a_picture() -> None:
    scores = segmentation(*random_maps())
    assert json.loads(json.dumps(scores.to_dict()))["metadata"]["threshold"] == "mean"
    assert scores.axes["auroc"] == ("image", "stage")
    assert [line.get_label() for line in scores.plot("iou").axes[0].lines] == ["iou"]
    assert len(scores.plot().axes[0].lines) == 6
    with pytest.raises(PrismaError, match="has no array 'heads'"):
        scores.plot("heads")


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "class": ({"target": 5}, "expected classes from 0 to 4; found 5"),
    "threshold": ({"threshold": "otsu"}, "expected threshold to be mean or a number; found 'otsu'"),
    "coverage": ({"coverage": torch.full((2, 3, 3), 2.0)}, "from 0 to 1; found other numbers"),
    "shape": ({"coverage": torch.ones(2, 3, 4)}, r"found \[2, 3, 3, 3\] and \[2, 3, 4\]"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_it_refuses(case: str) -> None:
    options, message = BAD[case]
    model = model_of("base")
    with pytest.raises(PrismaError, match=message):
        lens_segmentation(model, images_of(model), **{"coverage": torch.ones(2, 3, 3), "target": 0, **options})


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3])
def test_a_constant_map_has_the_scores_of_chance(value: float) -> None:
    share = torch.zeros(1, 3, 3)
    share[0, 0] = 1
    found = segmentation(torch.full((1, 1, 3, 3), value), share)
    assert found.auroc.item() == 0.5
    assert found.average_precision.item() == pytest.approx(1 / 3)  # the share of object patches
    assert (found.iou.item(), found.accuracy.item()) == (0, pytest.approx(2 / 3))  # no patch is above the mean
    with pytest.raises(PrismaError, match="expected threshold to be mean or a number; found nan"):
        segmentation(torch.zeros(1, 1, 3, 3), share, threshold=float("nan"))
