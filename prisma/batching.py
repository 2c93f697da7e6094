"""How many inputs fit in one pass, and metrics of images that are computed in several passes.

Every analysis that takes `batch=` follows the one rule of `inputs_per_pass`. A metric may hold a value for each of all
images (`Logit(labels)`), so the logits of a pass are shown to it in their places among all of them.
"""

import torch
from torch import Tensor

from prisma.config import TextConfig
from prisma.errors import NotFiniteError, PrismaError
from prisma.metrics import Metric, is_marked, measure, values_of
from prisma.numbers import exact, first_not_finite
from prisma.runs import Model

PASS_BYTES = 256 * 2**20
"""The memory that one pass takes at most, when `batch` is chosen automatically."""
SHARE_OF_FREE = 8
"""Patched runs take one part in so many of what is free on a GPU, where a pass of many runs takes as long as a few."""
MOST_INPUTS = 4096
MOST_LOGITS = 2**24
"""How many logits a metric that takes several runs is shown at once: what it computes with them takes memory too."""

Rows = slice | Tensor
"""Which of all images a pass holds: a slice, or their indices."""


def inputs_per_pass(
    model: Model, batch: int | None = None, *, memory: int | None = None, within: int = PASS_BYTES
) -> int:
    """How many inputs one pass takes: `batch`, or as many as fit in `within` bytes, and one at least.

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
    return min(max(within // (block_memory(model) if memory is None else memory), 1), MOST_INPUTS)


def runs_per_pass(model: Model, batch: int | None = None) -> int:
    """As `inputs_per_pass`, for runs without gradients: on a GPU as many as fit in an eighth of its free memory."""
    return inputs_per_pass(model, batch, within=_free_bytes(next(model.parameters()).device))


def _free_bytes(device: torch.device) -> int:
    """An eighth of a GPU's free memory as a power of two, so that others on it seldom change the last digits."""
    if device.type != "cuda":
        return PASS_BYTES
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free = (torch.cuda.mem_get_info(device)[0] + unused) // SHARE_OF_FREE
    return int(max(PASS_BYTES, 2 ** (free.bit_length() - 1)))


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


def measure_runs(metric: Metric, logits: Tensor) -> Tensor:
    """The metric [run, image] of several runs of the same images, from their logits [run, image, class].

    A metric that takes several runs (`metrics.takes_runs`) is called with many at once, any other once for each run.

    Raises:
        PrismaError: as in `measure`.
    """
    if (found := first_not_finite(logits.flatten(0, 1))) is not None:
        raise NotFiniteError(f"expected finite logits; found {found[1]} in image {found[0] % logits.shape[1]}")
    parts = logits.split(max(MOST_LOGITS // max(logits[0].numel(), 1), 1)) if is_marked(metric) else logits.unbind()
    together = torch.cat([values_of(metric, part).view(-1, logits.shape[1]) for part in parts])
    if (found := first_not_finite(together.flatten())) is not None:
        raise NotFiniteError(
            f"expected a metric that is finite; found {found[1]} in image {found[0] % logits.shape[1]}"
        )
    return exact(together)


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
