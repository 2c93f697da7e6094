"""Typed fields: check a value against a type hint, parse text to one, and build a frozen dataclass from a mapping.

The hints understood: `int`, `float`, `bool`, `str`, `None`, `tuple[X, ...]`, `tuple[X, Y]`, frozen dataclasses of
these, and unions.
"""

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

from prisma.errors import PrismaError, is_text, nearest, quoted

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")

_TRUTH = {"true": True, "yes": True, "false": False, "no": False}
_WORDS: Mapping[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    NoneType: "none",
    tuple[int, int]: "a pair of whole numbers such as 4,2",
}


def parse(name: str, text: str, kind: Any) -> Any:
    """The value of type `kind` that `text` stands for: "500", "1e-4", "true" or "yes", "none", "4,2".

    Args:
        name: what the value is called in the error message.

    Raises:
        PrismaError: the text cannot be read as such a value.
    """
    for option in _options(kind) if isinstance(text, str) else ():
        try:
            return _parse_one(text, option)
        except ValueError:
            continue
    raise _mismatch(name, kind, text)


def conform(name: str, value: Any, kind: Any) -> Any:
    """`value` as the type `kind` has it: a list becomes a tuple, a whole number becomes a float where one is wanted.

    Raises:
        PrismaError: the value is of another type. A bool is not a number.
    """
    for option in _options(kind):
        try:
            return _conform_one(value, option)
        except (TypeError, OverflowError):  # a whole number that no float can hold
            continue
    raise _mismatch(name, kind, value)


def check_types(config: "DataclassInstance") -> None:
    """Conform every field of a frozen dataclass to its type hint, in place; for use in `__post_init__`.

    Raises:
        PrismaError: a field holds a value of another type; it is named.
    """
    hints = _hints(type(config))
    for field in fields(config):
        object.__setattr__(config, field.name, conform(field.name, getattr(config, field.name), hints[field.name]))


def expect_choices(config: "DataclassInstance", choices: Mapping[str, tuple[str, ...]]) -> None:
    """Raise PrismaError unless each of these fields, by name, has one of its choices."""
    for name, known in choices.items():
        if (value := getattr(config, name)) not in known:
            raise PrismaError(f"expected {name} to be one of {', '.join(known)}; found {quoted(value)}")


def from_dict(kind: type[T], values: Any, source: Path | str) -> T:
    """A dataclass from its fields as JSON has them; a field that is absent has its default.

    Args:
        source: what the values were read from, for error messages.

    Raises:
        PrismaError: not a mapping, a field that is unknown (the nearest is named) or missing, or a value of another
            type.
    """
    if not isinstance(values, Mapping):
        raise PrismaError(f"expected {source} to hold named fields; found {quoted(values)}")
    hints, known = _hints(kind), {field.name: field for field in fields(kind)}
    if unknown := sorted(str(name) for name in values if name not in known):
        raise PrismaError(
            f"{source} has an unknown field {quoted(unknown[0])}; the nearest known: {nearest(unknown[0], known)}"
        )
    needed = (name for name, field in known.items() if field.default is field.default_factory is MISSING)
    if missing := [name for name in needed if name not in values]:
        raise PrismaError(f"{source} lacks the field {', '.join(missing)}")
    return kind(**{name: conform(name, value, hints[name]) for name, value in values.items()})


def describe(kind: Any) -> str:
    """A type in words: "a whole number or none"."""
    if kind in _WORDS:
        return _WORDS[kind]
    if get_origin(kind) is tuple:
        return f"a list of which each is {describe(get_args(kind)[0])}"
    if isinstance(kind, type):
        return f"the fields of a {kind.__name__}"
    return " or ".join(describe(option) for option in _options(kind))


@cache
def _hints(kind: type) -> Mapping[str, Any]:
    """The type of each field. Looking them up takes longer than checking all values."""
    return get_type_hints(kind)


def _options(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if isinstance(kind, UnionType) else (kind,)


def _parse_one(text: str, kind: Any) -> Any:
    """Raises ValueError if the text cannot be read as such a value."""
    if kind is NoneType or kind is bool:
        truth: Mapping[str, bool | None] = {"none": None} if kind is NoneType else _TRUTH
        if text.lower() not in truth:
            raise ValueError(text)
        return truth[text.lower()]
    if get_origin(kind) is tuple:
        parts = text.split(",")
        return tuple(_parse_one(part, wanted) for part, wanted in zip(parts, _of_each(kind, len(parts)), strict=True))
    if kind is str and not is_text(text):
        raise ValueError(text)
    return kind(text)


def _conform_one(value: Any, kind: Any) -> Any:
    """Raises TypeError if the value is of another type."""
    if get_origin(kind) is tuple:
        if not isinstance(value, tuple | list):
            raise TypeError
        try:
            pairs = list(zip(value, _of_each(kind, len(value)), strict=True))
        except ValueError:
            raise TypeError from None
        return tuple(_conform_one(part, wanted) for part, wanted in pairs)
    if isinstance(kind, type) and is_dataclass(kind) and isinstance(value, Mapping):
        return from_dict(kind, value, f"each {kind.__name__}")
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise TypeError
    return value


def _of_each(kind: Any, n: int) -> tuple[Any, ...]:
    """The types of the `n` elements of a tuple type."""
    kinds = get_args(kind)
    return (kinds[0],) * n if kinds[-1] is Ellipsis else kinds


def _mismatch(name: str, kind: Any, found: Any) -> PrismaError:
    return PrismaError(f"expected {name} to be {describe(kind)}; found {quoted(found)}")
