"""Class maps: each cell is the readout of its patch alone."""

import json
import math
from itertools import product
from typing import Any

import pytest
import torch

from prisma import PrismaError
from prisma.analysis.lens.class_maps import class_maps
from prisma.analysis.lens.logit_lens import logit_lens
from tests.variants import WITH_CLASSES, images_of, model_of


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


def test_they_are_results() -> None:
    model = model_of("base")
    maps = class_maps(model, images_of(model), [0, 1])
    said = json.loads(json.dumps(maps.to_dict()))
    assert said["metadata"]["target"] == [0, 1]
    assert math.isclose(said["arrays"]["maps"]["values"][1][2][0][1], maps.maps[1, 2, 0, 1].item())


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
    with pytest.raises(PrismaError, match="has no array 'heads'"):
        maps.plot("heads")


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "value": ({"value": "rank"}, "expected value to be one of logit, probability, logit_diff; found 'rank'"),
    "batch": ({"batch": 0}, "expected batch to be at least 1; found 0"),
    "class": ({"target": 5}, "expected classes from 0 to 4; found 5"),
    "negative": ({"target": [0, -1]}, r"expected classes from 0 to 4; found \[0, -1\]"),
    "classes": ({"target": [0, 1, 2]}, r"one for each of 2 images; found \[3\]"),
    "number": ({"target": 0.5}, r"one for each of 2 images; found \[\] with torch.float32"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_it_refuses(case: str) -> None:
    options, message = BAD[case]
    model = model_of("base")
    with pytest.raises(PrismaError, match=message):
        class_maps(model, images_of(model), **{"target": 0, **options})


@pytest.mark.parametrize("value", ["logit", "logit_diff"])
def test_the_values_are_the_named_metrics_of_each_patch(value: str) -> None:
    model = model_of("pool_mean")
    images = images_of(model)
    tokens = logit_lens(model, images).tokens
    assert tokens is not None
    found = class_maps(model, images, [4, 0], value=value).maps.flatten(2)
    for image, target in enumerate((4, 0)):
        for stage, patch in product(range(3), range(9)):
            answer = tokens[image, stage, 1 + patch].tolist()
            others = [x for c, x in enumerate(answer) if c != target]
            expected = answer[target] - (max(others) if value == "logit_diff" else 0)
            assert found[image, stage, patch].item() == pytest.approx(expected)


def test_a_model_without_classes_has_no_maps() -> None:
    model = model_of("no_head")
    with pytest.raises(PrismaError, match="n_classes=0"):
        class_maps(model, images_of(model), 0)
