"""Curves while a run trains: the points are the numbers, and strange names stay text."""

import math
import re

from prisma.train.live import HEIGHT, MARGIN, MOST_POINTS, WIDTH, curves_html


def test_the_curves_are_the_numbers() -> None:
    lines = [{"step": 0, "loss": 4.0, "test_loss": 4.0, "test_accuracy": 0.25}, {"step": 1, "loss": 2.0}]
    lines.append({"step": 3, "loss": 1.0, "test_loss": 2.0, "test_accuracy": 1.0})
    found = curves_html("a <b>", lines)
    assert "<p>a &lt;b&gt;, step 3: test loss 2, test accuracy 1</p>" in found
    loss, test_loss, accuracy = re.findall(r'<polyline points="([^"]*)"', found)
    points = [tuple(map(float, point.split(","))) for point in loss.split()]
    bottom, right = HEIGHT - 18, WIDTH - 8
    middle = MARGIN + (right - MARGIN) * math.log(2) / math.log(4)
    assert points == [(MARGIN, 18.0), (round(middle, 1), (bottom + 18) / 2), (right, bottom - (bottom - 18) / 4)]
    assert test_loss.split() == [f"{MARGIN}.0,18.0", f"{right}.0,75.0"]
    assert accuracy.split() == [f"{MARGIN}.0,{bottom - 0.25 * (bottom - 18):.1f}", f"{right}.0,18.0"]


def test_before_a_checkpoint_there_is_a_word_and_long_runs_stay_small() -> None:
    assert curves_html("a", []) == "<p>a: no checkpoint yet</p>"
    lines = [{"step": step, "loss": 1.0, "test_loss": 1.0} for step in range(10_001)]
    (points, _) = re.findall(r'<polyline points="([^"]*)"', curves_html("a", lines))
    assert len(points.split()) <= MOST_POINTS + 1 and points.split()[-1].startswith(f"{WIDTH - 8}.0,")
