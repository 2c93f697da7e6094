"""What files of other libraries say, read with its types: a word in the place of a number is an error, not a guess."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from prisma.errors import PrismaError, quoted
from prisma.fields import conform

OUTPUT = "output"
"""What the target of a transcoder is called where its file does not say."""


@dataclass(frozen=True)
class Said:
    """The settings of a file, by name."""

    values: Any
    source: Path

    def __post_init__(self) -> None:
        if not isinstance(self.values, Mapping):
            raise PrismaError(f"expected settings by name in {self.source}; found {quoted(self.values)}")

    def get(self, name: str, kind: Any, default: Any = None) -> Any:
        """A setting of this type, or the default where there is none. Raises PrismaError: it is of another type."""
        return conform(f"{name} in {self.source}", self.values[name], kind) if name in self.values else default

    def inside(self, name: str) -> "Said":
        """The settings under a name; none where it is absent or null."""
        found = self.values.get(name)
        return Said({} if found is None else found, self.source)

    def expect_sizes(self, sizes: Mapping[str, int]) -> None:
        """Raise PrismaError: a size is stated, and it is not that of the weights."""
        for name, size in sizes.items():
            if (stated := self.get(name, int | None)) not in (None, size):
                raise PrismaError(f"expected {name} in {self.source} to be that of the weights, {size}; found {stated}")


def matrix(tensors: Mapping[str, Tensor], name: str, source: Path, axes: int = 2) -> Tensor:
    """A tensor with so many axes. Raises PrismaError: there is none of this name, or it has others."""
    found = tensors.get(name)
    if found is None or found.ndim != axes:
        there = "none" if found is None else f"one of the shape {list(found.shape)}"
        raise PrismaError(f"expected {name} with {axes} axes among the weights in {source}; found {there}")
    return found


def expect_only(tensors: Mapping[str, Tensor], known: Sequence[str], source: Path) -> None:
    """Raise PrismaError if there is a tensor that a reader would leave out, since the coder may use it."""
    if unknown := [name for name in tensors if name not in known]:
        raise PrismaError(f"expected the tensors {', '.join(known)} in {source}; found {quoted(unknown[0])} too")


def known_kind(activation: str, source: Path) -> str:
    """Our kind of an activation's name. Raises PrismaError: it is none of ours."""
    kinds = {"relu": "standard", "topk": "topk", "batchtopk": "batchtopk", "jumprelu": "jumprelu"}
    if (kind := kinds.get(activation.lower().replace("_", ""))) is None:
        raise PrismaError(f"expected the activation {', '.join(kinds)} in {source}; found {quoted(activation)}")
    return kind


def threshold_of(theta: Tensor, m: int, source: Path, *, batched: bool) -> Tensor:
    """[m], of a threshold for each latent or one for all.

    Args:
        batched: of a batchtopk coder, where a number below zero says that none was ever set.

    Raises:
        PrismaError: another number of them, or one that was not set.
    """
    theta = theta.float().flatten()
    if len(theta) not in (1, m):
        raise PrismaError(
            f"expected one threshold, or one for each of {m:,} latents, in {source}; found {len(theta):,}"
        )
    if batched and (theta < 0).any():
        raise PrismaError(f"expected the threshold of a batchtopk coder in {source}; found that none was set")
    return theta.expand(m)
