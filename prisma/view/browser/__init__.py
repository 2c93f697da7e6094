"""Arrays in, pictures out. The viewers are plain JavaScript and CSS, and know nothing of the page around them."""

from pathlib import Path

from prisma.view.browser.payload import Packed, View, fractions, numbers

__all__ = ["VIEWERS", "Packed", "View", "fractions", "numbers", "script", "style"]

ASSETS = Path(__file__).parent / "assets"
VIEWERS = ("attention", "lens", "effects", "images", "steps", "curves")


def script(*viewers: str) -> str:
    """JavaScript that defines `function NAME(root, callbacks)` for each viewer, which returns `{update(manifest)}`.

    A manifest is `{facts, arrays: {name: {url, type, shape}}}`. `callbacks.state(values)` is told what is shown.
    """
    return "\n".join(
        (ASSETS / name).read_text() for name in ("core.js", "tokens.js", *(f"{viewer}.js" for viewer in viewers))
    )


def style() -> str:
    """CSS of every viewer. Colours come from custom properties, so that the page around decides on light and dark."""
    return (ASSETS / "viewer.css").read_text()
