"""An edit of weights as a value: it is made once, and can be applied, undone, saved, read and published.

    edit = WeightEdit((LowRank.of(model, "blocks.5.mlp.out", u, v),))
    with edit.apply(model):                # in place; afterwards, the weights are bitwise what they were
        ...
    other = edit.edited(model)             # a copy with the edit; the model is left as it is

An edit knows the weights it was made for, by their shapes and hashes, and others refuse it: what is the least change of
one model is noise in another. A sum of floats cannot be taken back exactly, so undoing gives back the weights that
`apply` kept, and nothing is computed.

A weight is that of `nn.Linear` [out, in] or of `Conv1D` of transformers [in, out], or a bias [out].
"""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from prisma.checkpoint import read_tensors, to_safetensors, weights_hash
from prisma.errors import PrismaError, nearest, quoted, shown
from prisma.files import to_json, write_atomic
from prisma.numbers import are_finite
from prisma.plain import uncompiled
from prisma.reading import parse_json

M = TypeVar("M", bound=nn.Module)

KIND, FORMAT = "weight edit", 1


def source_of(model: nn.Module) -> str:
    """Hash of all weights of a model: which model, exactly, an edit or a covariance was computed with."""
    return weights_hash(uncompiled(model).state_dict())


@dataclass(frozen=True, eq=False)
class LowRank:
    """What is added to one weight: `v @ u.T`, as a map from `in` to `out`.

    Attributes:
        weight: its name in the model: `blocks.5.mlp.out.weight`.
        u: [in, rank], float64: which keys are answered differently.
        v: [out, rank], float64: what is added to their answers.
        before: hash of the weight it was made for.
        transposed: the weight is stored as [in, out].
    """

    weight: str
    u: Tensor
    v: Tensor
    before: str
    transposed: bool = False

    def __post_init__(self) -> None:
        for name in ("u", "v"):
            object.__setattr__(self, name, getattr(self, name).detach().cpu().double().contiguous())
        if self.u.ndim != 2 or self.v.ndim != 2 or self.u.shape[1] != self.v.shape[1]:
            raise PrismaError(
                f"expected u [in, rank] and v [out, rank]; found {list(self.u.shape)} and {list(self.v.shape)}"
            )
        if not are_finite((self.u, self.v)):
            raise PrismaError(f"expected an edit of {shown(self.weight)} that is finite; found NaN or an infinity")

    @classmethod
    def of(cls, model: nn.Module, weight: str, u: Tensor, v: Tensor) -> "LowRank":
        """The addition to a weight of this model as it is now. `weight` may also name its module.

        Raises:
            PrismaError: no such weight, or one of another shape.
        """
        name, stored, transposed = _weight(model, weight)
        part = cls(name, u, v, _hash(stored), transposed)
        part._expect_shape(stored)
        return part

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weight, as it is stored; [out] of a bias is [out, 1] here."""
        out_in = (len(self.v), len(self.u))
        return out_in[::-1] if self.transposed else out_in

    def added_to(self, weight: Tensor) -> Tensor:
        """The weight with the edit: summed in float64, then rounded once to the weight's own type."""
        change = self.v @ self.u.T
        change = change.T if self.transposed else change
        return (weight.detach().cpu().double() + change.view_as(weight)).to(weight.dtype).to(weight.device)

    def _expect_shape(self, stored: Tensor) -> None:
        found = (*stored.shape, 1) if stored.ndim == 1 else tuple(stored.shape)
        if found != self.shape:
            raise PrismaError(
                f"expected {shown(self.weight)} of shape {list(self.shape)}, for which the edit was made; found "
                f"{list(stored.shape)}"
            )


@dataclass(frozen=True, eq=False)
class WeightEdit:
    """Additions to some weights of a model.

    Attributes:
        parts: one for each weight.
        about: what the edit is for, and how it was made: values that JSON has.
    """

    parts: tuple[LowRank, ...]
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [part.weight for part in self.parts]
        if not names or len(set(names)) < len(names):
            raise PrismaError(f"expected one addition for each of some weights; found {quoted(names)}")
        object.__setattr__(self, "parts", tuple(self.parts))
        object.__setattr__(self, "about", MappingProxyType(json.loads(to_json(self.about))))

    def apply(self, model: nn.Module) -> "Applied":
        """Edit a model in place. What is returned undoes it, also at the end of a `with`.

        Raises:
            PrismaError: a weight is absent, shared with another part, or not the one that the edit was made for;
                then nothing is changed.
        """
        stored = {}
        for part in self.parts:
            name, weight, _ = _weight(model, part.weight)
            part._expect_shape(weight)
            if _hash(weight) != part.before:
                raise PrismaError(
                    f"expected the weights that the edit was made for in {shown(name)}, with the hash "
                    f"{shown(part.before[:12])}; found {_hash(weight)[:12]}: of another model, or edited already"
                )
            stored[name] = weight
        return Applied(
            model, {part.weight: (stored[part.weight], part.added_to(stored[part.weight])) for part in self.parts}
        )

    def edited(self, model: M) -> M:
        """A copy of the model with the edit; the model itself is left as it is. Raises PrismaError as `apply`."""
        other = copy.deepcopy(model)
        self.apply(other)
        return other

    def write(self, path: Path | str) -> None:
        """Write it as safetensors: u and v of each weight. Raises PrismaError if it cannot be written."""
        tensors = {f"{part.weight}.{name}": getattr(part, name) for part in self.parts for name in ("u", "v")}
        facts = {part.weight: {"before": part.before, "transposed": part.transposed} for part in self.parts}
        header = {"kind": KIND, "format": str(FORMAT), "weights": json.dumps(facts)}
        write_atomic(Path(path), to_safetensors(tensors, {**header, "about": json.dumps(dict(self.about))}))

    @classmethod
    def read(cls, path: Path | str) -> "WeightEdit":
        """What `write` wrote. Raises PrismaError if the file is absent, truncated, foreign or not finite."""
        tensors, header = read_tensors(Path(path))
        if header.get("kind") != KIND or header.get("format") != str(FORMAT):
            raise PrismaError(
                f"expected a {KIND} of format {FORMAT} in {shown(path)}; found {quoted(header.get('kind', 'weights'))} "
                f"of format {quoted(header.get('format'))}"
            )
        try:
            facts = parse_json(header["weights"], path)
            parts = tuple(
                LowRank(name, tensors[f"{name}.u"], tensors[f"{name}.v"], str(x["before"]), bool(x["transposed"]))
                for name, x in facts.items()
            )
            about = parse_json(header["about"], path)
        except (KeyError, TypeError, AttributeError) as error:
            raise PrismaError(f"expected a whole {KIND} in {shown(path)}; found none of {shown(str(error))}") from None
        return cls(parts, about if isinstance(about, dict) else {})

    def __repr__(self) -> str:
        return f"WeightEdit({', '.join(f'{part.weight} rank {part.u.shape[1]}' for part in self.parts)})"


class Applied:
    """An edit that is in a model, and what was there before it."""

    def __init__(self, model: nn.Module, weights: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        self._model = uncompiled(model)
        self._kept = {name: (stored.detach().clone(), new) for name, (stored, new) in weights.items()}
        for stored, new in weights.values():
            _fill(stored, new)

    def undo(self) -> None:
        """Give the weights back, bitwise, also where the model holds them in new tensors. A second time does nothing.

        Raises:
            PrismaError: a weight changed since the edit, by another edit, by training, or because others were loaded:
                undo that first. Then nothing is changed.
        """
        now = dict(self._model.named_parameters(remove_duplicate=False))
        if changed := [name for name, (_, new) in self._kept.items() if not _bitwise(now.get(name), new)]:
            raise PrismaError(
                f"expected {shown(changed[0])} as the edit left it; found that it changed since: undo the later edit "
                "first"
            )
        for name, (old, _) in self._kept.items():
            _fill(now[name], old)
        self._kept = {}

    def __enter__(self) -> "Applied":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self.undo()
        except PrismaError as second:
            if error is None:
                raise
            error.add_note(f"The edit was not undone: {second}")  # and is not hidden by it


def _weight(model: nn.Module, name: str) -> tuple[str, nn.Parameter, bool]:
    """(full name, parameter, whether it is stored as [in, out]) of the weight that a name, or its module's, selects.

    Raises:
        PrismaError: there is none, it is computed from others, shared with another part, or another kind of module's.
    """
    model = uncompiled(model)
    named = dict(model.named_parameters(remove_duplicate=False))
    full = name if name in named else f"{name}.weight"
    if full not in named:
        raise PrismaError(
            f"expected the name of a weight of this model; found {quoted(name)}; the nearest are {nearest(full, named)}"
        )
    weight, module = named[full], attrgetter(full.rpartition(".")[0])(model) if "." in full else model
    if shared := [other for other, x in named.items() if x is weight and other != full]:
        raise PrismaError(
            f"expected a weight that one part has for itself; found {shown(full)}, which is {shown(shared[0])} too"
        )
    transposed = any(kind.__name__ == "Conv1D" for kind in type(module).__mro__)
    if weight.ndim == 2 and not transposed and not isinstance(module, nn.Linear):
        raise PrismaError(f"expected a linear map in {shown(full)}; found a {type(module).__name__}")
    if weight.ndim not in (1, 2) or not weight.is_floating_point():
        raise PrismaError(f"expected a matrix or a bias of floats in {shown(full)}; found {list(weight.shape)}")
    return full, weight, transposed and weight.ndim == 2


def _hash(weight: Tensor) -> str:
    return weights_hash({"weight": weight})


def _bitwise(now: Tensor | None, then: Tensor) -> bool:
    """Whether a weight has the same bits, on whatever device."""
    if now is None or now.is_meta or (now.dtype, now.shape) != (then.dtype, then.shape):
        return False
    a, b = (x.detach().cpu().contiguous().view(torch.uint8) for x in (now, then))
    return torch.equal(a, b)


@torch.no_grad()
def _fill(weight: Tensor, values: Tensor) -> None:
    weight.copy_(values)
