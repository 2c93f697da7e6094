"""Training a mouse: from a recipe to a run folder.

`prisma.train(model, task)` trains from Python: this module can be called, so that `import prisma.train.loop` and the
call go together, whichever comes first. Its function is `prisma.train.notebook.train_here`.
"""

import sys
from types import ModuleType
from typing import Any

from prisma.train.config import Recipe, TrainConfig
from prisma.train.loop import train
from prisma.train.notebook import Trained, train_here

__all__ = ["Recipe", "TrainConfig", "Trained", "train"]


class _Callable(ModuleType):
    """This module, which `train_here` makes a function too."""

    __doc__ = train_here.__doc__
    __wrapped__ = staticmethod(train_here)  # what inspect, and so the help of a notebook, takes the signature from

    def __call__(self, *args: Any, **kwargs: Any) -> Trained:
        return train_here(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
