"""Patching: which heads and tokens carry the difference between two images, and what a head is needed for.

view(scene)            the estimate for every head and token, and the exact maps where they are quick
view(scene, 1)         what one patch changes: the classes, and the attention of every layer
view(scene, 2)         what is left when some heads hold their mean
view(scene, 3)         the edges that alone give the metric, and how good they are
view(scene, 4)         an estimate of every patch by another way, to be compared with the exact maps
view(scene, 5)         the paths between parts, with the MLPs on the way frozen and computed anew
stream(scene, what)    exact cells, one after the other
"""

from prisma.errors import PrismaError
from prisma.view.browser import View
from prisma_app.library import Scene
from prisma_app.views.patching.ablating import ablated_run
from prisma_app.views.patching.circuit import circuit_code, circuit_run, circuit_values
from prisma_app.views.patching.compared import compared_code, compared_run, compared_values
from prisma_app.views.patching.maps import both_maps, code, values
from prisma_app.views.patching.one_patch import patched_run
from prisma_app.views.patching.paths import paths_code, paths_run, paths_values
from prisma_app.views.patching.runs import stream

__all__ = [
    "circuit_code",
    "circuit_values",
    "code",
    "compared_code",
    "compared_values",
    "paths_code",
    "paths_values",
    "stream",
    "values",
    "view",
]

PARTS = {None: both_maps, 1: patched_run, 2: ablated_run, 3: circuit_run, 4: compared_run, 5: paths_run}


def view(scene: Scene, part: int | None = None) -> View:
    """What the page draws. Raises PrismaError for a pair, class, site, cell or part that does not exist."""
    if part not in PARTS:
        raise PrismaError(
            "expected part 1 (a patch), 2 (ablation), 3 (a circuit), 4 (an estimate) or 5 (paths) of patching; "
            f"found {part}"
        )
    return PARTS[part](scene)
