"""Prisma: the laboratory for seeing how vision transformers think.

The public names load on first use, so that `import prisma` and `prisma --help` cost nothing that is not asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prisma.analysis.patching.activation_patching import sweep
    from prisma.config import ViTConfig
    from prisma.edits import Add, Mean, Resample, Scale, Set, Zero
    from prisma.errors import PrismaError
    from prisma.loaded import Loaded, load
    from prisma.metrics import Logit, LogitDiff, Probability
    from prisma.runs import record, run
    from prisma.vit import ViT

__version__ = "0.1.0"

__all__ = [
    "Add",
    "Loaded",
    "Logit",
    "LogitDiff",
    "Mean",
    "PrismaError",
    "Probability",
    "Resample",
    "Scale",
    "Set",
    "ViT",
    "ViTConfig",
    "Zero",
    "load",
    "record",
    "run",
    "sweep",
]

_HOME = {
    "config": ("ViTConfig",),
    "analysis.patching.activation_patching": ("sweep",),
    "edits": ("Add", "Mean", "Resample", "Scale", "Set", "Zero"),
    "errors": ("PrismaError",),
    "loaded": ("Loaded", "load"),
    "metrics": ("Logit", "LogitDiff", "Probability"),
    "runs": ("record", "run"),
    "vit": ("ViT",),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module 'prisma' has no attribute {name!r}")
    return getattr(import_module(f"prisma.{_MODULE[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
