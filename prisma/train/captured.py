"""A step of training as one CUDA graph: the GPU repeats what it did once, and waits for no Python in between."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.optim import Optimizer

_WARM_UP = 3  # steps before a graph is captured, as torch.cuda.graphs asks for
T = TypeVar("T")


@cache
def shared_pool() -> Any:
    """Memory for graphs of which one runs at a time. What one returns is there until another runs: copy it before."""
    return torch.cuda.graph_pool_handle()


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """On which graphs are captured: those of different streams would not share the memory of a pool."""
    return torch.cuda.Stream(device)


def captured(
    step: Callable[[], T], optimizer: Optimizer, changed: Sequence[Tensor], pool: Any = None
) -> Callable[[], T]:
    """The same step as a graph, which returns the same tensors each time, with new numbers.

    Args:
        step: one update, with everything that it reads in tensors on the GPU. No shape in it may depend on a number.
        optimizer: which it uses, with its moments, whose gradients are forgotten in between.
        changed: all that a step changes; it is afterwards as it was.
        pool: memory that it shares with other graphs (`shared_pool`).
    """
    device = changed[0].device
    with torch.no_grad():
        before = [x.detach().clone() for x in changed]
    with torch.cuda.device(device):
        own = _stream(device)
        own.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(own):
            for _ in range(_WARM_UP):
                step()
        torch.cuda.current_stream(device).wait_stream(own)
        graph = torch.cuda.CUDAGraph()
        optimizer.zero_grad()
        with torch.cuda.graph(graph, pool=pool, stream=own):
            found = step()
    with torch.no_grad():
        torch._foreach_copy_([x.detach() for x in changed], before)

    def replay() -> T:
        graph.replay()
        return found

    return replay
