"""The pictures of a mechanism card, drawn from its values alone."""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from prisma.analysis.circuits.graph import Edge
from prisma.mechanisms.findings import Mechanism, Row
from prisma.mechanisms.page import PICTURES, pictured
from prisma.mechanisms.sentences import ATTENDS, measure_of
from prisma.view.figures.charts import COLOURS
from prisma.view.figures.circuit import draw_circuit
from prisma.view.figures.plots import STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_HEADS, MOST_CURVES = 24, 4
NEEDED, NOT_NEEDED, AGAINST = "#d1495b", "#9aa0a8", "#3b6ea5"


def pictures(card: Mechanism) -> dict[str, bytes]:
    """File name -> PNG, for each step that has a picture: the same card gives the same bytes on one machine."""
    drawn: Mapping[str, Callable[[Mechanism], Figure]] = {
        "heads": draw_heads,
        "circuit": draw_edges,
        "dynamics": draw_training,
    }
    found = {}
    for name in pictured(card):
        drawn[name](card).savefig(buffer := io.BytesIO(), metadata={"Software": None})
        found[f"{PICTURES}/{name}.png"] = buffer.getvalue()
    return found


def draw_heads(card: Mechanism) -> "Figure":
    """How much worse the measure gets without each head, with its interval; the heads that matter most, in order."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    rows = card.step("heads").table("heads")[:MOST_HEADS]
    places = range(len(rows))
    with rc_context(STYLE):
        figure = Figure(figsize=(7.2, 1.1 + 0.26 * len(rows)), dpi=150, layout="constrained")
        panel = figure.subplots()
        panel.axvline(0, color="#c9ccd1", linewidth=1, zorder=0)
        for y, row in zip(places, rows, strict=True):
            value, low, high = row.cells[2]
            colour = NEEDED if low > 0 else AGAINST if high < 0 else NOT_NEEDED
            panel.plot([low, high], [y, y], color=colour, linewidth=2, solid_capstyle="round")
            panel.plot([value], [y], "o", color=colour, markersize=5)
        panel.set_yticks(list(places), [_label(row) for row in rows])
        panel.set_ylim(len(rows) - 0.5, -0.5)
        panel.margins(x=0.06)
        panel.set_xlabel(f"ablating it {measure_of(card.measure).worse} by (interval of 95 %)")
        panel.set_title("Red: needed. Grey: the interval has 0 in it.", loc="left", fontsize=9, color="#3b4048")
    return figure


def draw_edges(card: Mechanism) -> "Figure":
    """The circuit as a graph."""
    rows = card.step("circuit").table("edges")
    edges: list[tuple[Edge, float]] = []
    for row in rows:
        sender, _, receiver = row.name.partition(" > ")
        edges.append(((sender, receiver), row.cells[1][0]))
    return draw_circuit(_senders(card), edges)


def draw_training(card: Mechanism) -> "Figure":
    """The measure at every checkpoint, the heads whose harm changed most, and when each curve changed, by intervals."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    step, of = card.step("dynamics"), measure_of(card.measure)
    curves, changes = step.table("curves"), step.table("changes")[: 1 + MOST_CURVES]
    at = [int(row.name.removeprefix("step ")) for row in curves]
    with rc_context(STYLE):
        figure = Figure(figsize=(7.2, 4.8), dpi=150, layout="constrained")
        above, middle, below = figure.subplots(3, 1, sharex=True, height_ratios=(1, 1.3, 0.2 + 0.12 * len(changes)))
        for y, (row, colour) in enumerate(zip(changes, (COLOURS[5], *COLOURS), strict=False)):
            panel, place = (above, 0) if y == 0 else (middle, 1 + _index(card, row.name))
            panel.plot(at, _series(curves, place), color=colour, linewidth=1.6, label=row.name)
            if row.cells[2]:
                when, *ends = row.cells[2]
                below.plot(ends, [y, y], color=colour, linewidth=2, solid_capstyle="round")
                below.plot([when], [y], "o", color=colour, markersize=4)
        above.set_ylabel(of.noun)
        middle.set_ylabel(f"ablating it\n{of.worse} by")
        middle.axhline(0, color="#c9ccd1", linewidth=1, zorder=0)
        if len(changes) > 1:
            middle.legend(loc="upper left", fontsize=8, ncols=2)
        below.set_yticks(range(len(changes)), [row.name for row in changes], fontsize=7)
        below.set_ylim(len(changes) - 0.5, -0.5)
        below.set_ylabel("change\npoints")
        below.set_xlabel("step of training")
        below.set_xscale("symlog", linthresh=1)
        below.set_xlim(at[0], at[-1] * 1.05)
        ticks = [step for step in (0, 1, 10, 100, 1000, 10_000, 100_000) if at[0] <= step <= at[-1]]
        below.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        below.minorticks_off()
        figure.align_ylabels()
    return figure


def _series(curves: Sequence[Row], i: int) -> list[float]:
    return [row.cells[i][0] if row.cells[i] else math.nan for row in curves]  # of one that has diverged, a gap


def _index(card: Mechanism, name: str) -> int:
    """`head 1.2` -> its place among the heads."""
    layer, _, head = name.removeprefix("head ").partition(".")
    return int(layer) * card.n_heads + int(head)


def _label(row: Row) -> str:
    """`1.0  the previous patch`."""
    kind = next((kind for kind in ("not_needed", "needed", "against") if row.words.startswith(kind)), "")
    attends = ATTENDS.get(row.words.removeprefix(f"{kind}_"), "")
    return f"{attends}   head {row.name}".strip()


def _senders(card: Mechanism) -> list[str]:
    """The names of all that writes to the residual stream, in the order of the forward."""
    names = ["embed"]
    for layer in range(card.n_layers):
        names += [f"a{layer}.h{head}" for head in range(card.n_heads)] + [f"m{layer}"] * card.has_mlps
    return names
