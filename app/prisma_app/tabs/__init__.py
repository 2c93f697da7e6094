"""The tabs of the page, in order. A name here is a file in this folder with a `TAB`, and `?view=` in an address."""

from collections.abc import Mapping
from importlib import import_module

from prisma_app.tab import Tab

NAMES = (
    "attention",
    "lens",
    "patching",
)
TABS: Mapping[str, Tab] = {name: import_module(f"prisma_app.tabs.{name}").TAB for name in NAMES}
