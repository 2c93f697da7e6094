"""The analyses, a folder for each kind of question. Each is a function that returns a `Result` of the same name."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any


def __getattr__(name: str) -> Any:
    """A folder or module of this package, such as `prisma.analysis.modularity`, which is imported on first use."""
    if name.startswith("_") or find_spec(f"{__name__}.{name}") is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.{name}")
