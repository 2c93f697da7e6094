"""A metric at many checkpoints of a training: of few images, several checkpoints run as one.

A pass of one image through a mouse is mostly the time that torch takes to begin its operations, which a stack of the
weights of all checkpoints pays once. More images have enough to compute, and then the stack is slower, because its
activations no longer fit into the processor's caches; and many weights take time to be copied into a stack. So
checkpoints are stacked only within `FEW_TOKENS` and `FEW_WEIGHTS`.

Shapes: C checkpoint, B image.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from prisma.analysis.border import expect_finite_run
from prisma.batching import inputs_per_pass, measure_rows
from prisma.errors import NotFiniteError, PrismaError, warn
from prisma.metrics import Metric
from prisma.numbers import exact
from prisma.plain import is_plain
from prisma.runs import expect_inputs, run
from prisma.train.each_run import of_each_run
from prisma.vit import ViT

FEW_TOKENS = 140
"""Tokens of all images of a pass, up to which stacked checkpoints are faster on a CPU."""
FEW_WEIGHTS = 400_000
"""Weights of a checkpoint, up to which they are."""
MOST_STACKED = 64
"""Checkpoints in one stack, which holds a copy of their weights."""


@torch.no_grad()
def measure_checkpoints(
    models: Sequence[ViT], images: Tensor, metric: Metric, *, batch: int | None = None, stacked: bool | None = None
) -> Tensor:
    """What is a metric of the logits at every checkpoint, for every image?

    Args:
        models: the checkpoints, in their order; all of one architecture.
        images: the same for all.
        metric: logits [batch, class] -> one number per image.
        batch: images in one pass; by default as many as fit in 256 MiB.
        stacked: whether several checkpoints run as one. By default where that is faster: on a CPU, a small model and
            up to 140 tokens in all images of a pass. The numbers are the same up to rounding.

    Returns:
        [checkpoint, image], in the precision of the models, float32 at least. Of a checkpoint whose logits are not
        finite, NaN, with a warning that names it by its place.

    Raises:
        PrismaError: no checkpoint; checkpoints of different architectures or precisions; `stacked` models of which one
            carries more than weights, such as a hook; a metric that is not one finite number per image.
        NotFiniteError: a PrismaError: the logits of all checkpoints are not finite.
    """
    _expect_alike(models, images)
    n = inputs_per_pass(models[0], batch)
    config = models[0].config
    few = min(n, len(images)) * config.n_tokens <= FEW_TOKENS and config.n_weights <= FEW_WEIGHTS
    few = few and images.device.type == "cpu"
    together = few and len(models) > 1 and _are_plain(models) if stacked is None else stacked
    if stacked and not _are_plain(models):
        raise PrismaError("expected models without hooks and the like, to stack them; found one that carries more")
    rows = torch.arange(len(images), device=images.device).split(n)
    found, size, diverged = list[Tensor](), MOST_STACKED if together else 1, dict[int, NotFiniteError]()
    for some in (models[i : i + size] for i in range(0, len(models), size)):
        forward = _stack(some) if together else _alone(some[0])
        logits = [forward(images[chosen]) for chosen in rows]
        for i in range(len(some)):
            try:
                of_one = [expect_finite_run(x[i]) for x in logits]
            except NotFiniteError as error:
                diverged[len(found)] = error
                found.append(exact(logits[0]).new_full((len(images),), torch.nan))
                continue
            values = [measure_rows(metric, x, r, len(images)) for x, r in zip(of_one, rows, strict=True)]
            found.append(exact(torch.cat(values)))
    _tell(diverged, len(found))
    return torch.stack(found)


def _are_plain(models: Sequence[ViT]) -> bool:
    return all(is_plain(part) for model in models for part in model.modules())


def _alone(model: ViT) -> Callable[[Tensor], Tensor]:
    return lambda images: run(model, images)[None]


def _stack(models: Sequence[ViT]) -> Callable[[Tensor], Tensor]:
    """Images -> logits [checkpoint, image, class], by one forward of the stacked weights."""
    modules: list[nn.Module] = list(models)
    parameters, buffers = stack_module_state(modules)
    weights = {name: x.detach() for name, x in {**parameters, **buffers}.items()}

    def forward(own: dict[str, Tensor], pixels: Tensor) -> Any:
        return functional_call(models[0], own, (pixels,))

    each = of_each_run(forward, (0, None))
    return lambda images: each(weights, images)


def _tell(diverged: Mapping[int, NotFiniteError], of: int) -> None:
    """Warn of checkpoints without numbers. Raises NotFiniteError: there are no others."""
    if not diverged:
        return
    places = ", ".join(map(str, diverged))
    said = f"checkpoint {places} of {of} (the first is 0): {next(iter(diverged.values()))}"
    if len(diverged) == of:
        raise NotFiniteError(said)
    warn(f"{said}; there its metric is NaN")


def _expect_alike(models: Sequence[ViT], images: Tensor) -> None:
    if not models:
        raise PrismaError("expected one checkpoint or more; found none")
    for i, model in enumerate(models):
        expect_inputs(model, images)
        if model.config != models[0].config:
            raise PrismaError(
                f"expected checkpoints of one architecture; found another in checkpoint {i} (the first is 0)"
            )
        kinds = [next(x.parameters()).dtype for x in (models[0], model)]
        if kinds[0] != kinds[1]:
            raise PrismaError(f"expected checkpoints in one precision; found {kinds[0]} and {kinds[1]}")
