"""Training a mouse: from a recipe to a run folder.

`prisma.train(model, task)` trains from Python: this module can be called, so that `import prisma.train.loop` and the
call go together, whichever comes first. The call is that of `prisma.train.notebook.train`; the function `train` here,
`prisma.train.loop.train`, takes a recipe.
"""

import sys
from types import ModuleType
from typing import Any

from prisma.train.config import Recipe, TrainConfig
from prisma.train.loop import train
from prisma.train.notebook import Trained
from prisma.train.notebook import train as train_here

__all__ = ["Recipe", "TrainConfig", "Trained", "train"]


class _Callable(ModuleType):
    """This module, which can be called as the function in `notebook`, and looks like it to `inspect`."""

    __wrapped__ = staticmethod(train_here)

    def __call__(self, *args: Any, **kwargs: Any) -> Trained:
        return train_here(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
