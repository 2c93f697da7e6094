"""A table of answers: a cell for each row and stage, with the most probable class and its probability."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from prisma.errors import PrismaError
from prisma.view.figures.plots import STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_ROWS, MOST_LETTERS = 24, 16


def draw_answers(logits: Tensor, rows: Sequence[str], *, classes: Sequence[str] = (), title: str = "") -> "Figure":
    """Each cell names the most probable class; the more probable the class, the darker the cell.

    Args:
        logits: [row, stage, class].
        rows: names of the rows.
        classes: names of the classes; if not given, their numbers are shown.

    Raises:
        PrismaError: the number of names is not that of rows or classes, or there are more rows than can be read.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    if logits.ndim != 3 or not logits.numel() or len(rows) != len(logits):
        raise PrismaError(
            f"expected logits [row, stage, class] and a name for each row; found {list(logits.shape)} and {len(rows)}"
        )
    if len(rows) > MOST_ROWS:
        raise PrismaError(f"a figure has at most {MOST_ROWS} rows of answers; found {len(rows)}; select some first")
    if classes and len(classes) != logits.shape[-1]:
        raise PrismaError(f"expected {logits.shape[-1]} names of classes; found {len(classes)}")
    first = logits.detach().double().cpu().softmax(-1).max(-1)
    shown = [[_short(classes[i]) if classes else str(i) for i in row] for row in first.indices.tolist()]
    n, stages = first.values.shape
    longest = max(len(name) for row in shown for name in row)
    with rc_context(STYLE):
        size = 1.9 + stages * max(0.5, 0.065 * longest + 0.1), 0.95 + 0.27 * n
        figure = Figure(figsize=size, dpi=150, layout="constrained")
        panel = figure.subplots()
        image = panel.imshow(first.values.numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for row, (names, probabilities) in enumerate(zip(shown, first.values.tolist(), strict=True)):
            for stage, (name, p) in enumerate(zip(names, probabilities, strict=True)):
                colour = "white" if p > 0.55 else "#1f2328"
                panel.text(stage, row, name, ha="center", va="center", fontsize=7, color=colour)
        panel.set_yticks(range(n), rows, fontsize=8)
        panel.set_xticks(range(stages))
        panel.set_xlabel("stage (0 is the embedding)")
        figure.colorbar(image, ax=panel, label="probability")
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", color="#1f2328")
    return figure


def _short(name: str) -> str:
    return name if len(name) <= MOST_LETTERS else f"{name[: MOST_LETTERS - 1]}…"
