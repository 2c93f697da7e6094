"""A contact sheet: a row of pictures for each of many things."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from prisma.errors import PrismaError, shown
from prisma.view.figures.plots import STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_ROWS = 100
GAP = 0.12  # between pictures, as a share of their height
WIDEST = 28  # characters of a name


def draw_sheet(
    pictures: Tensor,
    beside: Tensor | None,
    names: Sequence[str],
    captions: Sequence[str] = (),
    *,
    titles: tuple[str, str] = ("optimised", "real images with the largest activation"),
) -> "Figure":
    """Rows of pictures, and beside them other pictures of the same things.

    Args:
        pictures: [row, column, 1 or 3 channels, height, width] in [0, 1].
        beside: as many rows of other pictures; None for none.
        names, captions: of the rows.
        titles: above the pictures, and above those beside them.

    Raises:
        PrismaError: nothing to draw, too many rows, or pictures that do not fit.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    for x in (pictures, *([] if beside is None else [beside])):
        if x.ndim != 5 or not x.numel() or x.shape[2] not in (1, 3) or len(x) != len(names) or len(x) > MOST_ROWS:
            raise PrismaError(
                f"expected pictures [1 to {MOST_ROWS} rows, column, 1 or 3 channels, height, width], and a name for "
                f"each row; found {list(x.shape)} and {len(names)} names"
            )
    height, width = pictures.shape[-2:]
    cell, aspect = 1 + GAP, width / height
    blocks = [(pictures, 0.0)]
    if beside is not None:
        blocks.append((beside, pictures.shape[1] * (aspect + GAP) + 3 * GAP))
    across = blocks[-1][1] + blocks[-1][0].shape[1] * (aspect + GAP)
    label = 2.0
    with rc_context(STYLE):
        inch = 0.9
        figure = Figure(figsize=(inch * (across + label), inch * (len(names) * cell + 0.5)), dpi=150)
        panel = figure.add_axes((0, 0, 1, 1))
        panel.set(xlim=(-label, across), ylim=(len(names) * cell, -0.5), aspect="equal")
        panel.set_axis_off()
        for (block, left), title in zip(blocks, titles, strict=False):
            panel.text(left, -0.12, title, fontsize=8, fontweight="bold", color="#1f2328")
            for row, pictured in enumerate(block):
                for column, picture in enumerate(pictured):
                    at, y = left + column * (aspect + GAP), row * cell
                    panel.imshow(_seen(picture), extent=(at, at + aspect, y + 1, y), interpolation="nearest")
        for row, name in enumerate(names):
            panel.text(-0.1, row * cell + 0.45, shown(name, WIDEST), ha="right", va="bottom", fontsize=7)
            if captions:
                panel.text(-0.1, row * cell + 0.55, captions[row], ha="right", va="top", fontsize=6, color="#5b616b")
        panel.set(xlim=(-label, across), ylim=(len(names) * cell, -0.5))
    return figure


def saved(figure: "Figure") -> bytes:
    """The bytes of a PNG file, without a date."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _seen(picture: Tensor) -> np.ndarray:
    """[height, width, 3] of bytes."""
    whole = (picture.detach().cpu().double().clamp(0, 1) * 255).round().to(torch.uint8)
    return whole.expand(3, -1, -1).permute(1, 2, 0).numpy()
