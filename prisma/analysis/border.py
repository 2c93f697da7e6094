"""The border of every analysis: nothing that is not a finite number goes in, and none comes out.

NaN does not stop a computation, and comparisons hide it: no logit is larger than NaN, so it has rank 0, and a pattern
of NaN has no row to scale, so its rollout is the identity. Therefore every public analysis is `guarded`:

    before   wrappers of `torch.compile` are taken off; numbers are of their type, finite and within bounds; images are
             tensors on the model's device; images, other tensors, metric and weights are finite; else the argument, the
             image or the parameter is named
    within   every run ends in finite numbers: `record` here, and `prisma.metrics.measure` for logits
    after    every array of the result is finite, but for those that its class lists in `UNDEFINED`

A run that overflows is searched, image by image, for the first site that is not finite. A bias of attention scores may
hold minus infinity, which masks a key.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from functools import reduce, wraps
from inspect import signature
from math import isfinite
from operator import or_
from types import NoneType
from typing import Any, ParamSpec, TypeVar, get_args, get_origin

import numpy as np
import torch
from torch import Tensor, nn

from prisma.analysis.result import Result
from prisma.bounds import expect_within
from prisma.data.pictures import Pictures
from prisma.errors import NotFiniteError, PrismaError, quoted
from prisma.fields import conform
from prisma.metrics import KL
from prisma.numbers import are_finite, first_not_finite
from prisma.plain import expect_unwrapped, uncompiled
from prisma.runs import Edits, Model, expect_inputs, expect_model, kind_of
from prisma.runs import record as record_any
from prisma.sites import Cache

P = ParamSpec("P")
R = TypeVar("R")
INPUTS = (
    *("images", "clean", "corrupt", "reference", "baseline", "test_images"),
    *("source_images", "test_source_images", "concept_images", "random_images"),
)
"""Names of arguments that are inputs of the model."""
_WITHIN: ContextVar[nn.Module | None] = ContextVar("within", default=None)
"""The model of the analysis that is running: others that it calls need not look at its weights again."""
BOUNDED = ("seed", "scale", "factor")
"""Names of arguments whose bounds are in `prisma.bounds`; the others' are checked by their analyses."""


def guarded(analysis: Callable[P, R]) -> Callable[P, R]:
    """An analysis that takes and returns finite numbers only; every public one is decorated with this.

    Raises:
        PrismaError: images that are no tensor on the model's device, or a model that is none of Prisma's.
        NotFiniteError: which argument, image, parameter, site or array of the result holds NaN or an infinity.
    """
    parameters = signature(analysis)

    @wraps(analysis)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = parameters.bind(*args, **kwargs)
        given = bound.arguments
        if "model" in given:
            expect_model(given["model"])
            given["model"] = uncompiled(given["model"])
            expect_unwrapped(given["model"])
        for name, value in given.items():
            given[name] = value = _number(name, value, parameters.parameters[name].annotation)
            if name in INPUTS and "model" in given and not isinstance(value, Pictures | None):
                expect_inputs(given["model"], value, name)
            _expect_tensor(name, value, parameters.parameters[name].annotation)
            _expect_metric(name, value, parameters.parameters[name].annotation)
            _expect_finite(name, value)
        outer = _WITHIN.set(given.get("model", _WITHIN.get()))
        try:
            result = analysis(*bound.args, **bound.kwargs)
            _expect_finite_result(result)
        except NotFiniteError as error:
            raise _located(given) or error from None
        finally:
            _WITHIN.reset(outer)
        return result

    return checked


def record(
    model: Model, images: Tensor, read: str | Iterable[str], edit: Edits | None = None, *, stop: bool = False
) -> tuple[Tensor, Cache]:
    """`prisma.runs.record`, of a run that ends in finite numbers: what is not finite at a site stays so to the end.

    Raises:
        NotFiniteError: the run ends in NaN or an infinity.
    """
    output, acts = record_any(model, images, read, edit, stop=stop)
    return expect_finite_run(output), acts


def expect_finite_run(output: Tensor) -> Tensor:
    """The residual stream or the logits [image, ...] at the end of a run, if they are finite."""
    if (found := first_not_finite(output)) is not None:
        raise NotFiniteError(f"expected a run that ends in finite numbers; found {found[1]}")
    return output


def _number(name: str, value: Any, annotation: Any) -> Any:
    """An argument; one that is a number, or a sequence of them, is of Python's own type, finite and within its bounds.

    Raises:
        PrismaError: it is of another type than the annotation, not finite, or out of the bounds of its name.
    """
    kinds = get_args(annotation) or (annotation,)
    if Tensor in kinds:  # classes, which their analyses check
        return value
    listed = any(get_origin(kind) in (Sequence, Iterable) and get_args(kind) == (int,) for kind in kinds)
    nested = any(get_origin(kind) is Sequence and get_origin(get_args(kind)[0]) is Sequence for kind in kinds)
    if nested and isinstance(value, Iterable):
        return [_whole_numbers(f"each of {name}", part) for part in value]
    if listed and not (value is None and NoneType in kinds) and not (isinstance(value, str) and str in kinds):
        return _whole_numbers(name, value)
    numeric = [kind for kind in kinds if kind in (int, float, bool)]
    if not numeric:
        return value
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bool | int | float | complex) or all(kind in (int, float, bool, NoneType) for kind in kinds):
        simple = [kind for kind in kinds if kind in (int, float, bool, str, NoneType)]
        value = conform(name, value, reduce(or_, simple))
    if isinstance(value, float) and str not in kinds and not isfinite(value):
        raise PrismaError(f"expected {name} to be a finite number; found {value}")
    if name in BOUNDED:
        expect_within(name, value)
    return value


def _whole_numbers(name: str, value: Any) -> list[int]:
    """A sequence of whole numbers, of Python's own type. Raises PrismaError: something else, such as one number."""
    parts = value.tolist() if isinstance(value, Tensor | np.ndarray) else value
    if isinstance(parts, str) or not isinstance(parts, Iterable):
        found = kind_of(value) if isinstance(value, Tensor | np.ndarray) else quoted(value)
        raise PrismaError(f"expected {name} to be several whole numbers, such as [0, 1]; found {found}")
    return [conform(name, x.item() if isinstance(x, np.generic) else x, int) for x in parts]


def _expect_tensor(name: str, value: Any, annotation: Any) -> None:
    """Raises PrismaError: an argument that is annotated as a tensor, or as one or None, is something else."""
    kinds = get_args(annotation) or (annotation,)
    if Tensor not in kinds or not all(kind in (Tensor, type(None)) for kind in kinds) or isinstance(value, kinds):
        return
    advice = f": use torch.as_tensor({name})" if isinstance(value, list | tuple) or hasattr(value, "__array__") else ""
    raise PrismaError(f"expected {name} as a tensor; found {kind_of(value)}{advice}")


def _expect_metric(name: str, value: Any, annotation: Any) -> None:
    """Raises PrismaError: a metric is no function, and nothing else that its analysis takes."""
    kinds = (annotation,) if get_origin(annotation) is Callable else get_args(annotation)
    others = tuple(get_origin(kind) or kind for kind in kinds if get_origin(kind) is not Callable)
    if name == "metric" and not callable(value) and not isinstance(value, others):
        raise PrismaError(f"expected metric as a function, such as prisma.LogitDiff(3, 8); found {quoted(value)}")


def _expect_finite(name: str, value: Any) -> None:
    """Raises NotFiniteError: an argument of an analysis holds NaN or an infinity."""
    if isinstance(value, nn.Module):
        if value is not _WITHIN.get():
            _expect_finite_weights(value)
    elif isinstance(value, Tensor):
        if (found := first_not_finite(value)) is not None:
            raise NotFiniteError(f"expected finite numbers in {name}; found {found[1]} in {_place(name, found[0])}")
    else:  # a metric, a tuned lens
        for field, tensor in _fields(value).items():
            if isinstance(value, KL):  # the logit of a class without probability is minus infinity
                tensor = tensor.masked_fill((tensor == -torch.inf) & (tensor > -torch.inf).any(-1, keepdim=True), 0)
            if (found := first_not_finite(tensor)) is not None:
                raise NotFiniteError(f"expected finite numbers in {name}.{field}; found {found[1]}")


def _fields(value: Any) -> Mapping[str, Tensor]:
    return {field: x for field, x in getattr(value, "__dict__", {}).items() if isinstance(x, Tensor)}


def _place(name: str, index: int) -> str:
    return f"row {index}" if name == "directions" else f"image {index}"


def _expect_finite_weights(model: nn.Module) -> None:
    """One pass over all weights, and one transfer from the device: a fraction of a forward of one image."""
    weights = dict(_weights(model))
    if are_finite(weights.values()):
        return
    for name, x in weights.items():
        masked = x.detach().masked_fill(x == -torch.inf, 0) if name.endswith((".attn.bias", ".time.bias")) else x
        if (found := first_not_finite(masked)) is not None:
            raise NotFiniteError(f"expected finite weights; found {found[1]} in {name} {list(x.shape)}")


def _weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _expect_finite_result(result: Any) -> None:
    if isinstance(result, tuple):
        for part in result:
            _expect_finite_result(part)
    undefined = result.UNDEFINED if isinstance(result, Result) else frozenset()
    for name, x in {"result": result}.items() if isinstance(result, Tensor) else _fields(result).items():
        if (found := first_not_finite(x.masked_fill(x.isnan(), 0) if name in undefined else x)) is not None:
            raise NotFiniteError(
                f"expected finite numbers in the result; found {found[1]} in {name} {list(x.shape)}, at {found[0]} of "
                f"its first axis: an intermediate number, such as a gradient, was too large for {_largest(x.dtype)}"
            )


class _Watch:
    """A tap that remembers the first site whose value is not finite."""

    def __init__(self, scope: str = "", found: list[tuple[str, float, torch.dtype]] | None = None) -> None:
        self.scope = scope
        self.found: list[tuple[str, float, torch.dtype]] = [] if found is None else found

    def __call__(self, site: str, x: Tensor) -> Tensor:
        if not self.found and (wrong := first_not_finite(x)) is not None:
            self.found.append((self.scope + site, wrong[1], x.dtype))
        return x

    def wants(self, site: str) -> bool:
        return False

    def within(self, scope: str) -> "_Watch":
        return _Watch(f"{self.scope}{scope}.", self.found)


@torch.no_grad()
def _located(given: Mapping[str, Any]) -> NotFiniteError | None:
    """The first site that is not finite in a plain run of one of the inputs; None if there is none."""
    model = next((x for x in given.values() if isinstance(x, nn.Module)), None)
    if model is None:
        return None
    for name, x in given.items():
        if name not in INPUTS or not isinstance(x, Tensor):
            continue
        for index in range(len(x)):
            watch = _Watch()
            model(x[index : index + 1], tap=watch)
            for site, value, dtype in watch.found:
                return NotFiniteError(
                    f"expected finite activations; found {value} first at the site {site}, in image {index} of {name}: "
                    f"it is too large for {_largest(dtype)}"
                )
    return None


def _largest(dtype: torch.dtype) -> str:
    """`float16, whose largest number is 65504: use model.float() and images.float()`."""
    name = str(dtype).removeprefix("torch.")
    if dtype not in (torch.float16, torch.bfloat16):
        return name
    return f"{name}, whose largest number is {torch.finfo(dtype).max:.6g}: use model.float() and images.float()"
