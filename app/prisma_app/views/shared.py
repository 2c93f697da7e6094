"""What several views use: the Python around their numbers, and numbers for programs."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from prisma_app.library import Scene

IMPORTS = {
    "Path(": "from pathlib import Path",
    "skimage.": "import skimage.data",
    "load_sample_images(": "from sklearn.datasets import load_sample_images",
}
"""What the Python of an image may need, beside Prisma, by what is in it."""


def default_token(scene: Scene) -> int:
    """The state's token, checked; by default the first of the prefix, else the middle patch."""
    config = scene.config
    default = 0 if config.n_prefix else (config.n_tokens // 2)
    return scene.index("token", scene.state.token, config.n_tokens, default)


def nested(scene: Scene, axes: Sequence[str], values: Tensor, **more: Any) -> dict[str, Any]:
    """Numbers as nested lists, with the names of their axes, and what they are of."""
    return {**scene.resolved(), "axes": list(axes), "values": values.detach().cpu().double().tolist(), **more}


def code_head(scene: Scene) -> str:
    """The Python that loads the model and makes `x`, the input [1, channel, height, width] of the image."""
    model, image = scene.subject.code(scene.step), scene.subject.code_of(scene.picture)
    others = [line for name, line in IMPORTS.items() if name in model + image]
    ours = ["import prisma", *(["from prisma.repository import Published"] if "Published(" in image else [])]
    return "\n".join([*others, *[""][: len(others)], *ours, "", model, f"x = {image}", ""])
