"""How many inputs fit in one pass, and metrics of images that are computed in several passes.

Every analysis that takes `batch=` follows the one rule of `inputs_per_pass`. A metric may hold a value for each of all
images (`Logit(labels)`), so the logits of a pass are shown to it in their places among all of them.
"""

import torch
from torch import Tensor

from prisma.config import TextConfig
from prisma.errors import PrismaError
from prisma.metrics import Metric, measure
from prisma.runs import Model

PASS_BYTES = 256 * 2**20
"""The memory that one pass takes at most, when `batch` is chosen automatically."""
MOST_INPUTS = 4096

Rows = slice | Tensor
"""Which of all images a pass holds: a slice, or their indices."""


def inputs_per_pass(model: Model, batch: int | None = None, *, memory: int | None = None) -> int:
    """How many inputs one pass takes: `batch`, or as many as fit in `PASS_BYTES`, and one at least.

    Args:
        batch: the caller's own choice.
        memory: bytes that one input keeps at the same time; by default `block_memory`.

    Raises:
        PrismaError: `batch` is below 1.
    """
    if batch is not None:
        if batch < 1:
            raise PrismaError(f"expected batch to be at least 1; found {batch}")
        return batch
    return min(max(PASS_BYTES // (block_memory(model) if memory is None else memory), 1), MOST_INPUTS)


def block_memory(model: Model) -> int:
    """Bytes of the activations of one block, of one input."""
    config = model.config
    tokens = config.context if isinstance(config, TextConfig) else config.n_tokens
    width = 4 * config.d_model + 4 * config.n_heads * config.d_head + 3 * config.d_mlp
    return tokens * width * next(model.parameters()).element_size()


def measure_rows(metric: Metric, logits: Tensor, rows: Rows, total: int, others: Tensor | None = None) -> Tensor:
    """The metric [row] of the images of one pass.

    Args:
        logits: [row, class], those of the pass.
        rows: which of all images they are.
        total: the number of all images.
        others: logits [total, class] of the images outside the pass; by default the pass's own logits, repeated.

    Raises:
        PrismaError: the metric is not one finite number per image.
    """
    if len(logits) == total:
        return measure(metric, logits)
    places = torch.arange(total, device=logits.device)
    chosen = places[rows]
    if others is None:
        return measure(metric, logits[(places - chosen[0]) % len(logits)], chosen)
    return measure(metric, others.index_put((chosen,), logits), chosen)


def metric_gradient(metric: Metric, logits: Tensor, rows: Rows, total: int) -> tuple[Tensor, Tensor]:
    """The metric [row] of the images of one pass, and its gradient by their logits [row, class].

    Args and errors: as in `measure_rows`; PrismaError too if the metric has no gradient.
    """
    with torch.enable_grad():
        leaf = logits.detach().requires_grad_()
        values = measure_rows(metric, leaf, rows, total)
        if not values.requires_grad:
            raise PrismaError(f"expected a metric that has a gradient; found {metric!r}, which has none")
        return values.detach(), torch.autograd.grad(values.sum(), leaf)[0]
