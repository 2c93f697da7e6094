"""Class maps: each cell is the readout of its patch alone; their scores are those of scikit-learn, and loops'."""

import json
import math
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

import prisma
from prisma import PrismaError
from prisma.analysis.lens.class_maps import class_maps, lens_segmentation, score_maps
from prisma.analysis.lens.logit_lens import logit_lens
from prisma.data import task
from prisma.data.task import coverage
from tests.variants import VARIANTS, images_of, model_of

WITH_CLASSES = [name for name, fields in VARIANTS.items() if fields.get("n_classes") != 0]


@pytest.mark.parametrize("variant", WITH_CLASSES)
def test_each_cell_is_the_lens_of_its_patch(variant: str) -> None:
    model = model_of(variant)
    images, c = images_of(model), model.config
    found = class_maps(model, images, [3, 1], batch=1)
    tokens = logit_lens(model, images).tokens
    assert tokens is not None
    times, rows, columns = c.grid
    video = c.frames > 1
    assert found.maps.shape == (2, c.n_layers + 1, *(c.grid if video else c.grid[1:]))
    assert found.axes["maps"] == ("image", "stage", *(["time"] if video else []), "row", "column")
    for image, time, row, column in product(range(2), range(times), range(rows), range(columns)):
        cell = found.maps[image, :, time, row, column] if video else found.maps[image, :, row, column]
        patch = c.n_prefix + (time * rows + row) * columns + column
        torch.testing.assert_close(cell, tokens[image, :, patch, (3, 1)[image]], rtol=0, atol=1e-12)


def test_a_probability_is_that_of_the_patch_s_own_answer() -> None:
    model = model_of("pool_mean")
    images = images_of(model)
    tokens = logit_lens(model, images).tokens
    assert tokens is not None
    found = class_maps(model, images, 4, value="probability")
    torch.testing.assert_close(found.maps.flatten(2), tokens[:, :, 1:].softmax(-1)[..., 4])
    assert found.metadata == {"analysis": "class_maps", "target": 4, "value": "probability"}


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
    found = score_maps(maps, share, threshold=threshold)
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
    good, bad = (score_maps(maps[:, None], share, threshold=0.4) for maps in (share, 1 - share))
    assert all(scores.item() == 1 for scores in good.arrays.values())
    assert [bad.arrays[name].item() for name in ("iou", "accuracy", "auroc")] == [1 / 4, 1 / 4, 0]  # 0.5 is above 0.4
    assert bad.mean_iou.item() == 1 / 8


def test_mixed_patches_are_not_scored() -> None:
    maps, share = random_maps()
    mixed = (share > 0) & (share < 0.5)
    assert mixed.any()
    other = torch.where(mixed[:, None], maps + 100, maps)
    for name, scores in score_maps(maps, share, threshold=0.0).arrays.items():
        assert torch.equal(scores, score_maps(other, share, threshold=0.0).arrays[name])


def test_an_image_without_object_has_no_score_that_needs_one() -> None:
    maps, share = (
        torch.rand(3, 2, 2, 2),
        torch.tensor([[[0.0, 0.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]], [[0, 0], [1, 1]]]),
    )
    found = score_maps(maps, share)
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


def test_they_are_results() -> None:
    model = model_of("base")
    maps = class_maps(model, images_of(model), [0, 1])
    said = json.loads(json.dumps(maps.to_dict()))
    assert said["metadata"]["target"] == [0, 1]
    assert math.isclose(said["arrays"]["maps"]["values"][1][2][0][1], maps.maps[1, 2, 0, 1].item())
    scores = score_maps(maps.maps, torch.ones(2, 3, 3))
    assert json.loads(json.dumps(scores.to_dict()))["metadata"]["threshold"] == "mean"
    assert scores.axes["auroc"] == ("image", "stage")


def test_their_pictures() -> None:
    model = model_of("video")
    images = images_of(model, n=3)
    maps = class_maps(model, images, 1)
    masks = torch.zeros(3, 4, 4, 4, dtype=torch.bool)
    masks[:, :, :2] = True
    panels = maps.plot(masks=masks, pictures=images[:, :1].sigmoid(), images=[2], stages=[0, 2]).axes
    assert [panel.get_ylabel() for panel in panels if panel.get_ylabel()] == ["picture", "stage 0", "stage 2"]
    assert panels[5].images[0].get_array().tolist() == maps.maps[2, 2, 1].tolist()
    assert len(maps.plot().axes) == 3 * 3 * 2  # stages, images, times
    for stages in ([3], []):
        with pytest.raises(PrismaError, match="expected stages from 0 to 2"):
            maps.plot(stages=stages)
    scores = score_maps(maps.maps, torch.ones(3, 2, 2, 2))
    assert [line.get_label() for line in scores.plot("iou").axes[0].lines] == ["iou"]
    assert len(score_maps(*random_maps()).plot().axes[0].lines) == 6
    for result in (maps, scores):
        with pytest.raises(PrismaError, match="has no array 'heads'"):
            result.plot("heads")


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "value": ({"value": "rank"}, "value must be one of logit, probability.*found 'rank'"),
    "batch": ({"batch": 0}, "batch must be at least 1; found 0"),
    "class": ({"target": 5}, "expected a class from 0 to 4, found 5"),
    "classes": ({"target": [0, 1, 2]}, r"one for each of 2 images; found \[3\]"),
    "threshold": ({"threshold": "otsu"}, "threshold must be mean or a number; found 'otsu'"),
    "coverage": ({"coverage": torch.full((2, 3, 3), 2.0)}, "from 0 to 1; found other numbers"),
    "shape": ({"coverage": torch.ones(2, 3, 4)}, r"found \[2, 3, 3, 3\] and \[2, 3, 4\]"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_it_refuses(case: str) -> None:
    options, message = BAD[case]
    model = model_of("base")
    with pytest.raises(PrismaError, match=message):
        lens_segmentation(model, images_of(model), **{"coverage": torch.ones(2, 3, 3), "target": 0, **options})


def test_a_model_without_classes_has_no_maps() -> None:
    model = model_of("no_head")
    with pytest.raises(PrismaError, match="n_classes=0"):
        class_maps(model, images_of(model), 0)
