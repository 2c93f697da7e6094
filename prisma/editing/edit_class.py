"""Edit a ViT so that it calls the images of a class by another name, by any method, and all others as before."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import Parameter, signature
from itertools import chain
from typing import Any, get_args

from torch import Tensor

from prisma.analysis.border import guarded
from prisma.editing.competitors import class_row, fine_tuning, head_edit, steering
from prisma.editing.mlp_edit import mean_key, multi_key
from prisma.editing.request import Request
from prisma.editing.weight_edit import WeightEdit
from prisma.errors import PrismaError, listed, quoted
from prisma.vit import ViT

METHODS: Mapping[str, Callable[..., WeightEdit]] = {
    "rank-one": mean_key,
    "multi-key": multi_key,
    "class-row": class_row,
    "head-edit": head_edit,
    "steering": steering,
    "fine-tuning": fine_tuning,
}


@guarded
def edit_class(
    model: ViT,
    images: Tensor,
    labels: Tensor,
    source: int | str,
    target: int | str,
    *,
    method: str = "rank-one",
    keys: int = 64,
    names: Sequence[str] = (),
    coverage: Tensor | None = None,
    seed: int = 0,
    **settings: Any,
) -> WeightEdit:
    """What is the least change of a model after which it calls the images of a class by another name?

    How well an edit does so is measured by `measure_edit`, on other images. The model itself is not changed.

    Args:
        images: [image, channel, height, width] with their `labels` [image]: training images, of all classes.
        source, target: the class that is edited and the one that it becomes, by number or by one of `names`.
        method: rank-one and multi-key change one MLP the least; class-row, head-edit, steering and fine-tuning are
            what these are compared with.
        keys: how many images of the class an edit is made with.
        names: the names of the model's classes.
        coverage: [image, patch], the share of each patch that is object; for keys at the object or the background.
        seed: of all choices of images, and of the shifts of copies.
        settings: those of the method: of `prisma.editing.KeySettings` for rank-one and multi-key (which has `old` too),
            and of `class_row`, `head_edit`, `steering` and `fine_tuning`.

    Raises:
        PrismaError: no such class, layer, role, method or setting; source and target are the same; a class without
            images; a model without classes; a covariance of another model or other keys.
    """
    expect_settings(method, settings)
    asked = Request.of(model, images, labels, source, target, names, keys, coverage, seed)
    return METHODS[method](asked, **settings)


def expect_settings(method: str, settings: Iterable[str]) -> None:
    """Raise PrismaError if there is no such method, or it has no such settings."""
    if method not in METHODS:
        raise PrismaError(f"expected a method: {', '.join(METHODS)}; found {quoted(method)}")
    its = _settings_of(METHODS[method])
    if unknown := sorted(set(settings) - set(its)):
        raise PrismaError(f"expected settings that {method} has: {', '.join(its)}; found {listed(unknown)}")


def _settings_of(method: Callable[..., WeightEdit]) -> list[str]:
    """The names of a method's settings, also of those that it shares with others: `**settings: Unpack[...]`."""
    own = signature(method).parameters.values()
    shared = [get_args(x.annotation)[0].__annotations__ for x in own if x.kind is Parameter.VAR_KEYWORD]
    return [*chain(*shared), *(x.name for x in own if x.kind is Parameter.KEYWORD_ONLY)]
