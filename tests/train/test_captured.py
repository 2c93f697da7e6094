"""A captured step leaves everything as it was, and repeats itself. On a GPU: tests/gpu/test_sparse.py and others."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch.optim import AdamW

from prisma.train.captured import captured


class Graph:
    """What a CUDA graph does, by taking the step that ran inside it again."""

    def __init__(self) -> None:
        self.replay: Callable[[], object] = lambda: None


class Stream:
    def __init__(self, device: object = None) -> None: ...
    def wait_stream(self, other: "Stream") -> None: ...


@contextmanager
def inside(_: object, **more: object) -> Iterator[None]:
    yield


@pytest.fixture
def as_if_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("CUDAGraph", Graph),
        ("Stream", Stream),
        ("stream", inside),
        ("graph", inside),
        ("device", inside),
    ):
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())


@pytest.mark.usefixtures("as_if_on_a_gpu")
def test_a_step_is_taken_first_and_all_is_put_back_before_the_graph_repeats_it() -> None:
    weight, place = torch.nn.Parameter(torch.ones(3)), torch.zeros(1)
    optimizer = AdamW([weight], lr=0.1, fused=True)
    weight.grad = torch.ones(3)
    optimizer.step()  # which makes the moments
    forgotten: list[bool] = []

    def step() -> torch.Tensor:
        forgotten.append(weight.grad is None)
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        optimizer.step()
        place.add_(1)
        return loss

    moments = list(optimizer.state[weight].values())
    changed = [weight, place, *moments]
    before = [x.detach().clone() for x in changed]
    replay = captured(step, optimizer, changed)
    assert len(forgotten) == 4 and forgotten[-1], "gradients of the steps before it belong to other memory"
    assert all(torch.equal(x, value) for x, value in zip(changed, before, strict=True))
    assert all(x is y for x, y in zip(moments, optimizer.state[weight].values(), strict=True)), "in place"
    found = replay()
    assert found is replay() and len(forgotten) == 4, "from here on the graph does it, not Python"
