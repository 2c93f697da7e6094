"""Pages without a server: one HTML file, its style and script, and numbers in scripts beside it.

A page that is opened from a disk may load scripts and no data, so each view is a script that hands its bytes over.
"""

import base64
import json
from html import escape
from string import Template
from typing import Any

from prisma.view.browser import ASSETS, View, script, style


def page_files(title: str, footer: str, entry: str, facts: Any) -> dict[str, bytes]:
    """`index.html`, `page.css` and `page.js` of a page.

    Args:
        title, footer: texts, which may come from anywhere.
        entry: the module that draws the page.
        facts: what it finds as `window.PRISMA_FILES`, JSON values.
    """
    page = Template((ASSETS / "page.html").read_text("utf-8"))
    html = page.substitute(title=escape(title), footer=escape(footer), files=as_script(facts))
    css = f"{(ASSETS / 'page.css').read_text('utf-8')}\n{style()}"
    return {"index.html": html.encode(), "page.css": css.encode(), "page.js": script(entry).encode()}


def pack_script(name: str, view: View) -> bytes:
    """The script that hands a view over under a name."""
    return f"PRISMA_PACK({as_script(name)}, {as_script(base64.b64encode(view.pack()).decode())});\n".encode()


def as_script(value: Any) -> str:
    """As JavaScript: ASCII, so that no name can end a string or a line, and no `<`, so that none can end a script."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
