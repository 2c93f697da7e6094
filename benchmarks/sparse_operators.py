"""What a step of training a sparse coder asks of a GPU, counted without one: ours and that of other libraries.

    python -m benchmarks.sparse_operators [--d 384 --m 6144 --k 32 --batch 4096] [--json FILE]

Operators are those of torch that run, without views; each costs the host some microseconds, but for ours, which are one
graph. Waits are those after which the host must know a number. Products are of matrices, in GFLOP; the rest moves
memory: megabytes that all other operators read and write. Other libraries run on a CPU, by the code that they have for
a GPU too. Ours runs on torch's meta device, which computes nothing but shapes, and takes the way of a GPU; its Triton
kernels count as one operator each, with the rows that they gather.
"""

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.sparse import KINDS
from benchmarks.sparse_contenders import CONTENDERS, LR, NEVER, Size, there
from prisma.sparse import kernels
from prisma.sparse.coders import CoderConfig
from prisma.sparse.learner import Learner, Plan

WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "bincount", "unique_dim", "_unique2", "equal"}
PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "_sparse_mm", "addmv", "mv"}
ADAM = 7 / 4
"""It reads four numbers for each weight, and writes three where it read them."""
GATHERS = {"index", "_embedding_bag", "embedding", "gather", "index_select"}


class Counted(TorchDispatchMode):
    """Counts the operators that run in it."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: Counter[str] = Counter()
        self.waits = 0
        self.flop = 0.0
        self.moved: Counter[str] = Counter()

    def add(self, name: str, moved: float) -> None:
        """One operator, and the bytes that it reads and writes."""
        self.operators[name] += 1
        self.moved[name] += round(moved)

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = operator(*args, **(kwargs or {}))
        name = operator.overloadpacket.__name__
        read = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        made = [x for x in tree_leaves(found) if isinstance(x, Tensor)]
        if operator.is_view or name in ("detach", "empty", "empty_strided", "empty_like", "new_empty"):
            return found
        self.waits += name in WAITS or (name == "index" and any(x.dtype == torch.bool for x in read[1:]))
        if name in PRODUCTS:
            self.operators[name] += 1
            self.flop += 2 * made[0].numel() * read[-2].shape[-1]
        else:
            moved = sum(map(_bytes, made)) + _read(name, read)
            self.add(name, ADAM * moved if name == "_fused_adam_" else moved)
        return found

    def row(self) -> dict[str, Any]:
        """What was counted."""
        return {
            "operators": self.operators.total(), "waits": self.waits, "gflop": round(self.flop / 1e9, 1),
            "moved_mb": round(self.moved.total() / 1e6),
            "most_mb": {name: round(moved / 1e6) for name, moved in self.moved.most_common(10)},
        }  # fmt: skip


def _bytes(x: Tensor) -> float:
    return x.numel() * x.element_size() if x.layout == torch.strided else 12.0 * x._nnz() * max(x.dense_dim(), 1)


def _read(name: str, read: list[Tensor]) -> float:
    """Bytes that an operator reads; of a gathered matrix, as many rows as there are indices."""
    if name == "_embedding_bag":
        return read[1].numel() * read[0].shape[1] * read[0].element_size()
    if name in GATHERS:
        return sum(map(_bytes, read[1:]))
    return sum(map(_bytes, read))


@contextmanager
def as_on_a_gpu(counted: Counted) -> Iterator[None]:
    """The kernels, as shapes alone, each of them one operator."""

    def threshold(p: Tensor, kept: int) -> Tensor:
        counted.add("batch_threshold", 2 * _bytes(p))
        return torch.zeros((), device=p.device)

    def top(p: Tensor, k: int, by_size: bool = False) -> Tensor:
        counted.add("top_columns", _bytes(p) + 8.0 * len(p) * k)
        return torch.empty(len(p), k, dtype=torch.int64, device=p.device)

    def above(p: Tensor, theta: Tensor, room: int) -> tuple[Tensor, Tensor, Tensor]:
        counted.add("places_above", 2 * _bytes(p) + 16.0 * room)
        columns, rows = torch.empty(2, room, dtype=torch.int64, device=p.device)
        return columns, rows, torch.empty(len(p) + 1, dtype=torch.int64, device=p.device)

    def sums(values: Tensor, at: Tensor, offsets: Tensor, matrix: Tensor) -> Tensor:
        out = matrix.new_empty(len(offsets) - 1, matrix.shape[1])
        counted.add("segment_sums", len(at) * (12.0 + matrix.shape[1] * matrix.element_size()) + _bytes(out))
        return out

    def dots(rows: Tensor, matrix: Tensor, at: Tensor, offsets: Tensor) -> Tensor:
        counted.add("entry_dots", len(at) * (12.0 + matrix.shape[1] * matrix.element_size()) + _bytes(rows))
        return matrix.new_empty(len(at))

    with mock.patch.multiple(
        kernels, fits=lambda x: True, batch_threshold=threshold, top_columns=top, places_above=above,
        segment_sums=sums, entry_dots=dots,
    ):  # fmt: skip
        yield


class _Moments:
    """Adam, which torch has not for the meta device."""

    state: tuple[()] = ()

    def __init__(self, weights: list[Tensor], counted: Counted) -> None:
        self.weights, self.counted = weights, counted

    def zero_grad(self) -> None:
        for weight in self.weights:
            weight.grad = None

    def step(self) -> None:
        self.counted.add("_fused_adam_", ADAM * 4 * sum(map(_bytes, self.weights)))


def of_ours(size: Size, batch: int) -> Counted:
    """Our step, as on a GPU."""
    counted, meta = Counted(), torch.device("meta")
    plan = Plan(CoderConfig(size.kind, size.d, size.m, size.k), 0, LR, None, NEVER)
    one: Any = Learner(plan, 10, torch.device("cpu"))
    one.coder.to(meta)
    one.optimizer, one.quiet, one.sparsity = _Moments(one.trained, counted), one.quiet.to(meta), one.sparsity.to(meta)
    x = torch.empty(batch, size.d, device=meta)
    with as_on_a_gpu(counted), counted:
        one._take(x, x, one._rooms[0])
    return counted


def of_peer(name: str, size: Size, batch: int) -> Counted:
    """A step of another library, after two others."""
    step: Callable[[Tensor], object] = CONTENDERS[name](size, 10, torch.device("cpu"), NEVER).step
    x = torch.randn(batch, size.d)
    step(x)
    step(x)
    counted = Counted()
    with counted:
        step(x)
    return counted


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, value in (("d", 384), ("m", 6144), ("k", 32), ("batch", 4096)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = []
    for kind in KINDS:
        size = Size(kind, given.d, given.m, given.k)
        for name in (name for name in CONTENDERS if there(name, kind, torch.device("cpu"))):
            counted = of_ours(size, given.batch) if name == "prisma" else of_peer(name, size, given.batch)
            rows.append({**vars(size), "batch": given.batch, "library": name, **counted.row()})
            print(rows[-1], flush=True)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
