"""The figure of a search."""

from pathlib import Path

from PIL import Image

from prisma.recipes import recipe
from prisma.smallest.figure import draw_frontier
from prisma.smallest.grid import Candidate
from prisma.smallest.halving import Found


def test_it_is_drawn_alike_twice_and_shows_the_smallest(tmp_path: Path) -> None:
    settings = [{"d_model": str(width), "patch_size": "16"} for width in (8, 16, 32)]
    found = Found(
        0.9, (0,), tuple(Candidate(s, recipe("circle").override(s), 100 * i + 1) for i, s in enumerate(settings))
    )
    for one, accuracy in zip(found.candidates, (0.4, 0.95, None), strict=True):
        one.steps, one.accuracy = 100, accuracy or 0.2
        one.finished = {} if accuracy is None else {0: accuracy}
    draw_frontier(found, "circle", tmp_path / "a.png")
    draw_frontier(found, "circle", tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    colours = Image.open(tmp_path / "a.png").convert("RGB").getcolors(10**6) or []
    counts = {colour: count for count, colour in colours}
    assert counts.get((0xD1, 0x49, 0x5B), 0) > 200, "the smallest"
    found.candidates[1].finished = {0: 0.8}
    draw_frontier(found, "circle", tmp_path / "none.png")
    colours = Image.open(tmp_path / "none.png").convert("RGB").getcolors(10**6) or []
    assert (0xD1, 0x49, 0x5B) not in {colour for _, colour in colours}
