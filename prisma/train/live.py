"""Curves of a run as a small piece of HTML, which is drawn in a millisecond and needs no script."""

import html
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Line = Mapping[str, Any]
WIDTH, HEIGHT, MARGIN = 320, 150, 34  # pixels of a panel
MOST_POINTS = 300  # of a curve
PANELS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "loss": (("loss", "#c9ccd1"), ("train_loss", "#7a7f87"), ("test_loss", "#d1495b")),
    "accuracy": (("train_accuracy", "#7a7f87"), ("test_accuracy", "#d1495b")),
    "r2": (("train_r2", "#7a7f87"), ("test_r2", "#d1495b")),
}
"""Panel -> the numbers of a line that it has, and their colours. A panel without any is not drawn."""


def curves_html(name: str, lines: Sequence[Line]) -> str:
    """Loss and accuracy over the steps, on a logarithmic axis of steps, and the newest numbers in words."""
    evaluated = [line for line in lines if "test_loss" in line]
    if not evaluated:
        return f"<p>{html.escape(name)}: no checkpoint yet</p>"
    last = evaluated[-1]
    words = f"{name}, step {lines[-1]['step']:,}: " + ", ".join(
        f"{key.replace('_', ' ')} {last[key]:.4g}" for key in ("test_loss", "test_accuracy", "test_r2") if key in last
    )
    panels = "".join(_panel(title, curves, lines) for title, curves in PANELS.items())
    return f"<p>{html.escape(words)}</p><div>{panels}</div>"


def _panel(title: str, curves: Sequence[tuple[str, str]], lines: Sequence[Line]) -> str:
    found = {name: [(line["step"], float(line[name])) for line in lines if name in line] for name, _ in curves}
    values = [value for points in found.values() for _, value in points]
    if not values:
        return ""
    low, high, last = min(0.0, *values), max(values), max(lines[-1]["step"], 1)

    def x(step: float) -> float:
        return MARGIN + (WIDTH - MARGIN - 8) * math.log1p(step) / math.log1p(last)

    def y(value: float) -> float:
        return HEIGHT - 18 - (HEIGHT - 36) * (value - low) / (high - low or 1)

    drawn = "".join(_line(found[name], colour, x, y) for name, colour in curves if found[name])
    texts = [(2, 12, title), (2, y(high) + 4, f"{high:.3g}"), (2, y(low) + 4, f"{low:.3g}")]
    texts.append((WIDTH - 60, HEIGHT - 4, f"{last:,}"))
    written = "".join(f'<text x="{a}" y="{b:.1f}" font-size="11" fill="#5d6675">{t}</text>' for a, b, t in texts)
    return f'<svg width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{title}">{drawn}{written}</svg>'


def _line(
    points: Sequence[tuple[int, float]], colour: str, x: Callable[[float], float], y: Callable[[float], float]
) -> str:
    """A polyline of at most MOST_POINTS, evenly spaced in the list, the last one always among them."""
    every = -(-len(points) // MOST_POINTS)
    some = [*points[:-1:every], points[-1]]
    path = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in some)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
