"""Numbers that are no numbers, and numbers out of range: one sentence from every analysis."""

from collections.abc import Callable
from inspect import signature
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

import prisma
from prisma import LogitDiff, PrismaError
from prisma.analysis.patching.corruptions import blur, gaussian_noise
from tests.analysis.test_names import functions
from tests.variants import images_of, model_of

METRIC = LogitDiff(0, 1)


def kinds_of(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) or (annotation,)


PARAMETERS = [
    (name, parameter.name, kinds_of(parameter.annotation))
    for name, function in functions().items()
    for parameter in signature(function).parameters.values()
    if any(kind in (int, float, bool) for kind in kinds_of(parameter.annotation))
    and Tensor not in kinds_of(parameter.annotation)  # classes, which have tests of their own
    and name != "edge_result"
]
LISTS = [
    (name, parameter.name)
    for name, function in functions().items()
    for parameter in signature(function).parameters.values()
    if any(str(kind).endswith(("Sequence[int]", "Iterable[int]")) for kind in kinds_of(parameter.annotation))
    and int not in kinds_of(parameter.annotation)
]


def called(name: str, **options: Any) -> Any:
    """The analysis, with anything for what is needed: the border looks at a number before it is used."""
    model = model_of("base")
    function = functions()[name]
    needed = {n: object() for n, x in signature(function).parameters.items() if x.default is x.empty}
    known = {
        "model": model,
        "images": images_of(model, 2),
        "clean": images_of(model, 2),
        "corrupt": images_of(model, 2, 5),
    }
    known |= {
        "metric": METRIC,
        "masks": torch.ones(2, 3, 3),
        "coverage": torch.ones(2, 3, 3),
        "maps": torch.ones(2, 1, 3, 3),
        "target": 0,
        "labels": torch.tensor([0, 1]),
        "numbers": torch.tensor([[0, 1], [1, 2]]),
        "test_images": images_of(model, 2),
        "test_labels": torch.tensor([0, 1]),
        "direction": torch.ones(model.config.d_model),
    }
    known |= {
        name: images_of(model, 2) for name in ("source_images", "test_source_images", "concept_images", "random_images")
    }
    known |= {
        "site": "blocks.0.resid_post",
    }
    return function(**{**{n: known.get(n, x) for n, x in needed.items()}, **options})


@pytest.mark.parametrize(("name", "parameter", "kinds"), PARAMETERS)
def test_a_value_that_is_no_such_number(name: str, parameter: str, kinds: tuple[Any, ...]) -> None:
    wrong: list[Any] = [float("nan"), float("inf"), -float("inf"), np.float64("nan"), 1 + 2j]
    wrong += [10**400] if int not in kinds else []
    wrong += [] if bool in kinds else [True, False, np.True_]
    wrong += [] if float in kinds else [1.5]
    wrong += ["x", "1"] if all(kind in (int, float, bool, type(None)) for kind in kinds) else []
    wrong += [1, 0.0] if bool in kinds else []
    wrong += [-1, 2**64] if parameter == "seed" else []
    wrong += [-0.1, 1.1] if parameter == "enough" else []
    wrong += [-1.0] if parameter in ("scale", "factor") else []
    for value in wrong:
        with pytest.raises(PrismaError, match=rf"expected (a )?{parameter} (to be|from)"):
            called(name, **{parameter: value})
            pytest.fail(f"{name} takes {parameter}={value!r}")


@pytest.mark.parametrize(("name", "parameter"), LISTS)
def test_a_list_with_something_that_is_no_whole_number(name: str, parameter: str) -> None:
    for value in ([1.5], [True], ["1"], [float("nan")], [None], (0, np.True_)):
        with pytest.raises(PrismaError, match=f"expected {parameter} to be a whole number; found "):
            called(name, **{parameter: value})
            pytest.fail(f"{name} takes {parameter}={value!r}")


def test_numbers_of_numpy_are_numbers() -> None:
    model = model_of("base")
    images = images_of(model, 3)
    found = prisma.artifacts(model, images, factor=np.float32(2.5), batch=np.int64(2))  # type: ignore[arg-type]
    expected = prisma.artifacts(model, images, factor=2.5, batch=2)
    assert all(torch.equal(x, expected.arrays[name]) for name, x in found.arrays.items())
    layers = prisma.norm_weighted_attention(model, images, layers=np.array([1])).metadata["layers"]  # type: ignore[arg-type]
    assert layers == [1] and type(layers[0]) is int


UNGUARDED: dict[str, Callable[[Any], Any]] = {
    "sigma": lambda x: gaussian_noise(images_of(model_of("base")), sigma=x),
    "sigma of blur": lambda x: blur(images_of(model_of("base")), sigma=x),
    "level": lambda x: prisma.bootstrap_interval(lambda rows: rows.sum(), 3, level=x),
}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, "1", None, -1.0])
@pytest.mark.parametrize("name", UNGUARDED)
def test_numbers_of_corruptions_and_intervals(name: str, value: Any) -> None:
    with pytest.raises(PrismaError, match=f"expected (a )?{name.split()[0]}"):
        UNGUARDED[name](value)
