"""Imported, before anything else, by the processes that tests start: a torch without its compiler.

The optimizers of torch import the compiler, which takes longer than everything else together, only to ask it to leave
them alone. Nothing is compiled in these processes.
"""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch


class _Compiler(ModuleType):
    @staticmethod
    def graph_break() -> None:
        """What optimizers call around each step."""

    @staticmethod
    def disable(function: Callable[..., Any], *_: object, **__: object) -> Callable[..., Any]:
        """The function itself, which nobody compiles."""
        return function


if "torch._dynamo" not in sys.modules:
    sys.modules["torch._dynamo"] = torch._dynamo = _Compiler("torch._dynamo")  # type: ignore[assignment]
