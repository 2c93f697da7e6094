"""Arrays in, figures out. The viewer is plain JavaScript and CSS, and knows nothing of Gradio.

The JavaScript is written as modules, one for each question, which the page gets as one script: it loads with one
request, works inside a notebook's output, and from a disk, where browsers load no modules.
"""

import re
from pathlib import Path

from prisma.view.browser.payload import Array, View, attention_rows, fractions, numbers, pictures

__all__ = ["Array", "View", "attention_rows", "fractions", "numbers", "pictures", "script", "style"]

ASSETS = Path(__file__).parent / "assets"
_IMPORT = re.compile(r'^import \{[^}]*\} from "\./([a-z_]+)\.js";\n', re.M)


def script(entry: str) -> str:
    """The module `entry` and all that it imports, in order, as one script inside a function of its own.

    Names are those of the modules: no two modules may define the same one.
    """
    order: list[str] = []

    def add(name: str) -> None:
        text = (ASSETS / f"{name}.js").read_text("utf-8")
        for needed in _IMPORT.findall(text):
            if needed not in order:
                add(needed)
        if name not in order:
            order.append(name)

    add(entry)
    bodies = [_IMPORT.sub("", (ASSETS / f"{name}.js").read_text("utf-8")) for name in order]
    return '(() => {\n"use strict";\n' + re.sub(r"^export ", "", "\n".join(bodies), flags=re.M) + "})();\n"


def style() -> str:
    """The CSS of the viewer. Colours come from custom properties, so that the page around decides on light and dark."""
    return (ASSETS / "viewer.css").read_text("utf-8")
