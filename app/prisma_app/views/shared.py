"""What several views use: the Python around their numbers, and numbers for programs."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from prisma_app.library import Scene

IMPORTS = {
    "Path(": "from pathlib import Path",
    "np.": "import numpy as np",
    "skimage.": "import skimage.data",
    "torch.": "import torch",
    "load_sample_images(": "from sklearn.datasets import load_sample_images",
    ": Tensor": "from torch import Tensor",
}
OURS = {
    "prisma.": "import prisma",
    "Score(": "from prisma.analysis.attention.score_functions import SCORES, Score, ScoreContext",
    "task(": "from prisma.data import task",
    "Published(": "from prisma.repository import Published",
    "decoded(": "from prisma_app.pictures import decoded",
}
"""What a program needs, of other libraries and of Prisma, by what is in it."""


def default_token(scene: Scene) -> int:
    """The state's token, checked; by default the first of the prefix, else the middle patch."""
    config = scene.config
    default = 0 if config.n_prefix else (config.n_tokens // 2)
    return scene.index("token", scene.state.token, config.n_tokens, default)


def nested(scene: Scene, axes: Sequence[str], values: Tensor, **more: Any) -> dict[str, Any]:
    """Numbers as nested lists, with the names of their axes, and what they are of."""
    return {**scene.resolved(), "axes": list(axes), "values": values.detach().cpu().double().tolist(), **more}


def program(body: str, imports: Sequence[str] = ()) -> str:
    """Python with the imports that it needs; `imports` are those of Prisma that `OURS` does not have."""
    others = [line for name, line in IMPORTS.items() if name in body]
    ours = [*(line for name, line in OURS.items() if name in body), *imports]
    return "\n".join([*others, *[""][: len(others)], *ours, "", body])


def below(lines: str) -> str:
    """Python that is shown below that of a figure: with its own imports, since it may need others."""
    return f"\n{program(lines)}"


def code_head(scene: Scene) -> str:
    """The Python that loads the model and makes `x`, the input [1, channel, height, width] of the image."""
    return f"{scene.subject.code(scene.step)}\nx = {scene.subject.code_of(scene.picture)}\n"
