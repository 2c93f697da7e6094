"""Norms of tokens by stage: patches as a band, those above a cutoff as dots, and prefix tokens as lines."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from prisma.errors import PrismaError
from prisma.view.figures.plots import STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PATCHES, ABOVE = "#3b6ea5", "#d1495b"
PREFIX = ("#2a9d5c", "#8e5bb5")


def draw_norms(
    patches: Tensor, cutoffs: Tensor, prefix: Mapping[str, Tensor] | None = None, *, title: str = ""
) -> "Figure":
    """The norms of all patches of all images by stage, against the cutoff of each stage.

    Args:
        patches: [image, stage, patch].
        cutoffs: [stage]: a patch above it is drawn as a dot, and the others as a band.
        prefix: name -> norms [image, stage, token] of prefix tokens, drawn as the mean over images and tokens.

    Raises:
        PrismaError: the arrays have other axes, or no values.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    if patches.ndim != 3 or not patches.numel() or cutoffs.shape != patches.shape[1:2]:
        raise PrismaError(
            "expected norms of patches [image, stage, patch] and a cutoff of each stage; "
            f"found {list(patches.shape)} and {list(cutoffs.shape)}"
        )
    patches_SX = patches.detach().double().cpu().transpose(0, 1).flatten(1).numpy()
    cutoff_S = cutoffs.detach().double().cpu().numpy()
    above_SX = patches_SX > cutoff_S[:, None]
    others_SX = np.where(above_SX & ~above_SX.all(1, keepdims=True), np.nan, patches_SX)
    stages = range(len(patches_SX))
    with rc_context(STYLE):
        figure = Figure(figsize=(7.2, 3.8), dpi=150, layout="constrained")
        panel = figure.subplots()
        for low, high, alpha, label in ((0.0, 1.0, 0.15, "other patches"), (0.05, 0.95, 0.3, "90 % of them")):
            ends = np.nanquantile(others_SX, (low, high), axis=1)
            panel.fill_between(stages, *ends, color=PATCHES, alpha=alpha, linewidth=0, label=label)
        panel.plot(stages, np.median(patches_SX, axis=1), color=PATCHES, label="median patch")
        for (name, norms), colour in zip((prefix or {}).items(), PREFIX, strict=False):
            mean_S = norms.detach().double().cpu().mean((0, 2)).numpy()
            panel.plot(stages, mean_S, color=colour, label=f"{name}, mean")
        panel.plot(np.nonzero(above_SX)[0], patches_SX[above_SX], ".", color=ABOVE, alpha=0.3, label="artifacts")
        panel.plot(stages, cutoff_S, color=ABOVE, linestyle="--", label="cutoff")
        panel.set(xlabel="stage (0 is the embedding)", ylabel="norm of the residual stream", ylim=(0, None))
        panel.xaxis.set_major_locator(MaxNLocator(12, integer=True))
        figure.legend(loc="outside right upper", fontsize=8)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", color="#1f2328")
    return figure
