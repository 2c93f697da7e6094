"""Gradio, the shell of the page, imported in half the time that it takes by itself.

While Gradio is imported, it writes the methods of each of its components into a file beside its code, for editors, and
to find out whether these files are right it parses all of them and its own code. It leaves out components that have no
file, and so, for as long as it is imported, its components have none.
"""

import inspect
from typing import Any
from unittest.mock import patch

_getfile = inspect.getfile


def _without_components(thing: Any) -> str:
    if str(getattr(thing, "__module__", "")).startswith("gradio."):
        raise OSError("no file, so that none is written beside it")
    return _getfile(thing)


with patch.object(inspect, "getfile", _without_components):
    import gradio as gr

__all__ = ["gr"]
