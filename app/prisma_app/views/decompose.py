"""Decompose: what the embedding, every head, every MLP and every bias write to one logit; the parts sum to it."""

from typing import Any

from torch import Tensor

from prisma.analysis.attribution.direct_logit_attribution import DirectLogitAttribution, direct_logit_attribution
from prisma.errors import PrismaError
from prisma.metrics import Logit, LogitDiff, Metric
from prisma.view.browser import View, numbers
from prisma.view.browser.parts import Part, parts_facts, parts_of, written
from prisma_app.answers import answer
from prisma_app.library import Scene
from prisma_app.views.naming import naming_run
from prisma_app.views.shared import code_head, nested, program

PARTS = """values = torch.cat([
    found.heads[0, int(name.split(".")[1])] if name.endswith(".attn") else found.components[0, i : i + 1]
    for i, name in enumerate(found.metadata["components"])
])  # a number for each head, and for each other component; their sum is found.value[0]
"""


def view(scene: Scene, part: int | None = None) -> View:
    """The parts of the logit of the state's class, or of the difference of the logits of two classes.

    Part 0 is the naming of heads (`naming`).

    Raises:
        PrismaError: there is no such class, the two are the same, the model cannot take the image, or has diverged.
    """
    if part == 0:
        return naming_run(scene)
    if part is not None:
        raise PrismaError(f"expected part 0 (the names of heads) of decompose; found {part}")
    scene = _asked(scene)
    found, parts, bars = _parts(scene)
    facts = {
        **parts_facts(parts, float(found.value[0]), float(bars.double().sum())),
        "state": scene.resolved(target=scene.state.target, against=scene.state.against),
        "code": code(scene),
    }
    return View(facts, {"parts": numbers(bars)})


def values(scene: Scene) -> dict[str, Any]:
    """What each part writes [part], their names, and the logit (or the difference) that they sum to."""
    scene = _asked(scene)
    found, parts, bars = _parts(scene)
    names, state = [part.name for part in parts], {"target": scene.state.target, "against": scene.state.against}
    return nested(scene, ["part"], bars, names=names, logit=float(found.value[0]), **state)


def code(scene: Scene) -> str:
    """The Python that computes what each part writes, [part]."""
    metric = f"prisma.{_metric(_asked(scene))!r}"
    found = f"found = prisma.direct_logit_attribution(loaded.model, x, {metric}, sources=False)\n"
    return program(f"{code_head(scene)}{found}{PARTS}")


def _parts(scene: Scene) -> tuple[DirectLogitAttribution, list[Part], Tensor]:
    found = direct_logit_attribution(scene.loaded.model, scene.picture.x[None], _metric(scene), sources=False)
    parts = parts_of(found.metadata["components"], 0 if found.heads is None else found.heads.shape[-1])
    heads = None if found.heads is None else found.heads[0]
    return found, parts, written(parts, found.components[0], heads)


def _asked(scene: Scene) -> Scene:
    """The scene with a class: by default the model's answer."""
    if scene.state.target is not None:
        return scene
    return Scene(scene.state.model_copy(update={"target": int(answer(scene).argmax())}), scene.subject)


def _metric(scene: Scene) -> Metric:
    count, against = len(scene.subject.labels), scene.state.against
    target = scene.index("class", scene.state.target, count)
    return Logit(target) if against is None else LogitDiff(target, scene.index("class", against, count))
