"""The views, in the order of the page. A name here is a file in this folder, `view=` in an address, and an endpoint.

Each file has:

    view(scene, part) -> View      what the page draws; `part` is a part of it that is fetched later, None for the first
    values(scene) -> dict          the same numbers as nested lists, with the names of their axes, for programs
    code(scene) -> str             the Python that computes them with the library alone
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

NAMES = ("attention", "lens", "patching", "training", "decompose", "steering", "latents", "units")
VIEWS: Mapping[str, Any] = {name: import_module(f"prisma_app.views.{name}") for name in NAMES}
HEAVY_PARTS = {
    ("training", 1),
    ("latents", 0),
    ("decompose", 0),
    ("steering", 0),
    ("patching", 3),
    ("patching", 4),
    ("patching", 5),
    ("units", 0),
}
"""The (name, part) that are computed in the heavy lane."""
