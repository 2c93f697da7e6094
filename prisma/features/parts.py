"""What the parts of a foreign network give in a run: which can be read, and where the channels of a map are.

A map has its channels first, [batch, channel, row, column], or last, [batch, row, column, channel], as within the
blocks of ConvNeXt and Swin. Convolutions and pooling tell the former of what they take and give, linear maps and norms
of the last axis the latter. From there it is followed: a tensor that goes from one part to another has one layout, and
a part that gives the shape that it takes gives the layout that it takes, unless all sides are equal.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from prisma.analysis.readings import MAP
from prisma.errors import PrismaError
from prisma.sites import canonical

AXES: Mapping[int, tuple[str, ...]] = {2: ("batch", "feature"), 3: ("batch", "token", "feature"), 4: MAP}
"""Number of axes of what a part gives -> their names, once channels are first."""
TRIED = 2  # images with which a network is tried: more than one, so that the first axis is that of images
FIRST = (
    nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.InstanceNorm2d, nn.GroupNorm, nn.MaxPool2d, nn.AvgPool2d,
    nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d,
)  # fmt: skip
"""Parts of maps whose channels are first."""


def logits_of(output: Any) -> Any:
    """What a network gives as a whole: a tensor, or that of the logits in an output of transformers."""
    return output if isinstance(output, Tensor) else getattr(output, "logits", output)


def why_not(output: Any) -> str | None:
    """Why what a part gives for `TRIED` images cannot be read; None if it can."""
    if not isinstance(output, Tensor):
        return f"a {type(output).__name__}"
    fits = output.ndim in AXES and len(output) == TRIED and output.is_floating_point()
    return None if fits else f"{list(output.shape)} for {TRIED} images"


def expect_readable(site: str, output: Any, *, again: bool) -> None:
    """Raise PrismaError unless a part gives one tensor, once in a run."""
    found = "one that runs several times" if again else why_not(output)
    if found is not None:
        raise PrismaError(
            f"expected {site} to give one tensor [batch, feature], [batch, token, feature] or a map [batch, channel, "
            f"row, column] once in a run; found {found}"
        )


def outermost(module: nn.Module, path: str, usable: Collection[str]) -> Iterator[str]:
    """The parts of a module that are usable; of one that is not, those in it."""
    for name, child in module.named_children():
        site = canonical(f"{path}{name}")
        if site in usable:
            yield site
        else:
            yield from outermost(child, f"{path}{name}.", usable)


def outputs_of(parts: Mapping[str, nn.Module], run: Callable[[], Any], note: Callable[..., None]) -> Any:
    """A run in which `note(site, part, inputs, output)` sees all that parts take and give; its result."""

    def hook(site: str) -> Callable[..., None]:
        return lambda part, args, named, output: note(site, part, [*args, *named.values()], output)

    hooks = [part.register_forward_hook(hook(site), with_kwargs=True) for site, part in parts.items()]
    try:
        with torch.no_grad():
            return run()
    finally:
        for handle in hooks:
            handle.remove()


def channels_last(parts: Mapping[str, nn.Module], run: Callable[[], Any]) -> dict[str, bool | None]:
    """Whether the map that each part gives has its channels last; None where that is not known.

    Parts that give no map are left out. A network in which nothing works on the last axis has its channels first.
    """
    seen: list[tuple[str, nn.Module, list[Tensor], Any]] = []  # which also keeps tensors, so that ids stay theirs

    def note(site: str, part: nn.Module, inputs: list[Any], output: Any) -> None:
        seen.append((site, part, [x for x in inputs if _is_map(x)], output if _is_map(output) else None))

    outputs_of(parts, run, note)
    known: dict[int, bool] = {}
    for _, part, inputs, output in seen:
        for x in inputs if output is None else (*inputs, output):
            if (last := _told_by(part, x)) is not None:
                known.setdefault(id(x), last)
    if True in known.values():
        _follow(known, [(inputs, output) for _, _, inputs, output in seen if output is not None])
        return {site: known.get(id(output)) for site, _, _, output in seen if output is not None}
    return {site: False for site, _, _, output in seen if output is not None}


def _is_map(x: Any) -> bool:
    return isinstance(x, Tensor) and x.ndim == 4


def _told_by(part: nn.Module, x: Tensor) -> bool | None:
    """Whether a map that a part takes or gives has its channels last, as far as its kind tells."""
    if isinstance(part, FIRST):
        return False
    if isinstance(part, nn.Linear):
        return True
    if isinstance(part, nn.LayerNorm | nn.RMSNorm) and len(part.normalized_shape) == 1:
        if type(part) in (nn.LayerNorm, nn.RMSNorm):
            return True
        fits = [
            size == part.normalized_shape[0] for size in (x.shape[1], x.shape[-1])
        ]  # others may norm channels first
        return fits[1] if fits[0] != fits[1] else None
    return None


def _follow(known: dict[int, bool], passed: list[tuple[list[Tensor], Tensor]]) -> None:
    """What is known of tensors told of those that have the same layout, until nothing is new."""
    pairs = [
        (x, output)
        for inputs, output in passed
        for x in inputs
        if x is not output and x.shape == output.shape and len(set(x.shape[1:])) > 1
    ]
    before = -1
    while before != len(known):
        before = len(known)
        for one, other in (*pairs, *reversed(pairs)):
            for a, b in ((one, other), (other, one)):
                if id(a) in known:
                    known.setdefault(id(b), known[id(a)])
