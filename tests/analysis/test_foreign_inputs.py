"""Every analysis of what is no batch of tensors, or no model of Prisma: one sentence. A compiled model is welcome."""

from collections.abc import Callable
from inspect import signature
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import prisma
from prisma import PrismaError
from prisma.analysis.border import INPUTS
from tests.analyses import METRIC, OF_IMAGES, arrays_of
from tests.analysis.test_names import functions
from tests.variants import images_of, model_of

ANALYSES = {
    name: call
    for name, call in functions().items()
    if "model" in signature(call).parameters and name != "edge_result"  # makes a result of passes, whose callers check
}


def called(analysis: Callable[..., Any], model: Any, images: Any) -> Any:
    """An analysis of this model and these images; the border does not look at the other arguments before them."""
    parameters = signature(analysis).parameters
    needed = [name for name, x in parameters.items() if x.default is x.empty or name == "images"]
    given = {name: images if name in INPUTS else object() for name in needed}
    return analysis(**{**given, "model": model})


NO_TENSORS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "array": (lambda x: x.numpy(), "a numpy.ndarray: use torch.stack"),
    "list": (list, "a list: use torch.stack"),
    "picture": (lambda x: Image.new("RGB", (6, 6)), "a PIL.Image: use torch.stack"),
}


@pytest.mark.parametrize("kind", NO_TENSORS)
@pytest.mark.parametrize("name", [name for name, x in ANALYSES.items() if {*signature(x).parameters} & {*INPUTS[:2]}])
def test_what_is_no_tensor(name: str, kind: str) -> None:
    change, found = NO_TENSORS[kind]
    model = model_of("base")
    with pytest.raises(
        PrismaError, match=f"expected (images|clean) as a tensor with an axis for the batch; found {found}"
    ):
        called(ANALYSES[name], model, change(images_of(model, 3)))


@pytest.mark.parametrize("name", OF_IMAGES)
def test_a_tensor_that_is_no_batch_of_pixels(name: str) -> None:
    """Also where the range of the pixels is known: no warning of it comes before the reason."""
    model = model_of("base")
    images, model.pixel_range = images_of(model, 3), ((-2.0, 2.0),) * 2
    with pytest.raises(PrismaError, match=r"expected .*pixels.*; found torch\.uint8"):
        OF_IMAGES[name](model, (images * 255).to(torch.uint8))
    with pytest.raises(PrismaError, match=r"expected .*pixels.*; found torch\.float32: use images\.to\(torch\.float64"):
        OF_IMAGES[name](model, 1000 * images.float())
    with pytest.raises(PrismaError, match="expected "):
        OF_IMAGES[name](model, 1000 * images[0])


@pytest.mark.parametrize("name", ANALYSES)
def test_what_is_no_model(name: str) -> None:
    model = model_of("base")
    images = images_of(model, 3)
    foreign: list[tuple[Any, str]] = [
        (nn.DataParallel(model), "a torch.DataParallel: pass its .module"),
        (prisma.Loaded(model, None, ()), "a prisma.Loaded: pass its .model"),
        (nn.Linear(2, 2), "a torch.Linear$"),
        (None, "a NoneType$"),
    ]
    for other, found in foreign:
        with pytest.raises(PrismaError, match=f"^expected a prisma.ViT; found {found}"):
            called(ANALYSES[name], other, images)


@pytest.mark.filterwarnings("ignore:expected pairs that agree")
@pytest.mark.parametrize("name", OF_IMAGES)
def test_a_compiled_model_is_analysed_as_it_is(name: str) -> None:
    model = model_of("base")
    images, compiled = images_of(model, 3), torch.compile(model, backend="eager")
    expected = arrays_of(OF_IMAGES[name](model, images))
    with torch.compiler.set_stance("force_eager"):
        found = arrays_of(OF_IMAGES[name](compiled, images))  # type: ignore[arg-type]
    for array, x in expected.items():
        torch.testing.assert_close(found[array], x, equal_nan=True)


@pytest.mark.parametrize("kind", [list, np.asarray])
def test_masks_coverage_and_labels_that_are_no_tensor(kind: Callable[[Any], Any]) -> None:
    model = model_of("base")
    images, coverage = images_of(model, 3), torch.ones(3, 3, 3)
    calls: dict[str, Callable[[Any], Any]] = {
        "masks": lambda x: prisma.head_scores(model, images, masks=x),
        "maps": lambda x: prisma.segmentation(x, coverage),
        "coverage": lambda x: prisma.causal_tracing(model, images, x, metric=METRIC, samples=2),
        "labels": lambda x: prisma.class_identifiability(model, images, x),
    }
    for name, call in calls.items():
        with pytest.raises(
            PrismaError, match=rf"expected {name} as a tensor; found .*: use torch.as_tensor\({name}\)$"
        ):
            call(kind(coverage))
    for target in ("ant", None, ["ant", "bee", "cat"]):
        with pytest.raises(PrismaError, match="expected a class, or one for each of 3 images; found "):
            prisma.class_maps(model, images, target)  # type: ignore[arg-type]
