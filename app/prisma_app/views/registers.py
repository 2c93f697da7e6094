"""Register neurons: which neurons answer where patches have an outlying norm, and what is left when they are moved.

The neurons are found in one half of the test images. Then an empty token is added, and what the neurons do at the
patches they do there instead (test-time registers), in the scene's image and in the other half; beside it the empty
token alone, and as many random neurons.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prisma.analysis.attention.register_neurons import RegisterNeurons, register_neurons
from prisma.analysis.attention.test_time_registers import WAYS, TestTimeRegisters, test_time_registers
from prisma.analysis.statistics import bootstrap_interval
from prisma.errors import PrismaError, quoted
from prisma.view.browser import View, numbers
from prisma_app.library import Scene
from prisma_app.pictures import Picture
from prisma_app.views.shared import below, code_head, nested, program

READ = 64  # images that are read, at most
MOST_WORK = 2e12  # multiply-adds of the weights in all runs, some seconds: else fewer images
RUNS = 6  # of each image, about: two to find the neurons, or one for each way
FACTOR, FACTORS = "3", ("1.5", "2", "3", "5")
"""The values of `outlying` in an address: multiples of the median norm."""
MOVED, MOST_MOVED = 10, 1000


@dataclass(frozen=True)
class Found:
    """The neurons, and what moving them does; the scene's image is the last one of `moved`."""

    neurons: RegisterNeurons
    moved: TestTimeRegisters
    factor: str
    layer: int
    count: int  # of neurons
    tested: int  # images that were read
    rows: tuple[list[int], list[int]]  # of these, in which neurons were found, and the others


def registers_run(scene: Scene) -> View:
    """Norms of the patches `norms` [way, patch] in the scene's image, and `image`; `facts` has the rest.

    Raises:
        PrismaError: no patch of the images has such a norm; the model has no MLPs, or no token can be added to it;
            there is no such factor, layer or number of neurons.
    """
    found = _found(scene)
    moved, neurons = found.moved, found.neurons
    assert moved.norms is not None
    own = moved.artifacts[-1] * moved.norms.shape[-1]
    answers = moved.logits.argmax(-1)  # [image, way]
    facts = {
        "ways": list(WAYS),
        "factors": list(FACTORS),
        "cutoff": neurons.metadata["cutoff"],
        "neurons": [[*at, float(neurons.score[at]), float(neurons.elsewhere[at])] for at in neurons.top(found.count)],
        "counts": [len(rows) for rows in found.rows],
        "above": [round(count) for count in own.tolist()],
        "answers": [scene.subject.labels[c] for c in answers[-1].tolist()] if scene.config.n_classes else None,
        "share": _with_interval(moved.artifacts[:-1]),
        "same": (answers[:-1] == answers[:-1, :1]).double().mean(0).tolist() if scene.config.n_classes else None,
        "grid": list(scene.config.grid[1:]),
        "more": below(_lines(scene, found)),  # below the Python of the unit
        "state": scene.resolved(outlying=found.factor, after=found.layer, moved=found.count),
    }
    return View(facts, {"norms": numbers(moved.norms[-1]), "image": scene.subject.shown(scene.picture.x[None])})


def registers_values(scene: Scene) -> dict[str, Any]:
    """Norms of the scene's patches [way, patch]; the share of outlying patches in other images, and the neurons."""
    found = _found(scene)
    assert found.moved.norms is not None
    return nested(
        scene,
        ["way", "patch"],
        found.moved.norms[-1],
        ways=list(WAYS),
        neurons=[list(pair) for pair in found.neurons.top(found.count)],
        cutoff=found.neurons.metadata["cutoff"],
        share=found.moved.artifacts[:-1].double().mean(0).tolist(),
        images=len(found.rows[1]),
        outlying=found.factor,
        after=found.layer,
        moved=found.count,
    )


def registers_code(scene: Scene) -> str:
    """The Python that finds the neurons and moves them."""
    return program(f"{code_head(scene)}{_lines(scene, _found(scene))}")


def _lines(scene: Scene, found: Found) -> str:
    first, others = found.rows
    asked = f"stage={found.layer + 1}, factor={found.factor}"
    return (
        f"tested = {scene.subject.code_of_examples(found.tested)}\n"
        f"neurons = prisma.register_neurons(loaded.model, tested[{first}], {asked})\n"
        f"others = torch.cat([tested[{others}], x])\n"
        f"moved = prisma.test_time_registers(loaded.model, others, neurons, n={found.count})\n"
        "norms = moved.norms[-1]  # [way, patch] of the image; moved.metadata['ways'] names the ways\n"
    )


def _with_interval(shares: Tensor) -> list[list[float]]:
    """The mean of each way [image, way], and the ends of its interval over images."""
    mean, ends = shares.double().mean(0), bootstrap_interval(lambda rows: shares[rows].double().mean(0), len(shares))
    return torch.stack([mean, *ends], dim=1).tolist()


def _tested(scene: Scene) -> list[Picture]:
    model = scene.loaded.model
    work = sum(p.numel() for p in model.parameters()) * scene.config.n_tokens * RUNS
    return scene.subject.test_images(max(6, min(READ, int(MOST_WORK / work))))


def _found(scene: Scene) -> Found:
    state, config = scene.state, scene.config
    factor = FACTOR if state.outlying is None else state.outlying
    if factor not in FACTORS:
        raise PrismaError(f"expected outlying as one of {', '.join(FACTORS)}; found {quoted(factor, 40)}")
    layer = scene.index("layer", state.after, config.n_layers, config.n_layers - 1)
    tested = _tested(scene)
    known = [i for i, picture in enumerate(tested) if picture.img != scene.picture.img]
    first, others = known[::2], known[1::2]
    if not others:
        raise PrismaError(f"expected three test images or more; found {len(tested)}")
    x = torch.stack([picture.x for picture in tested])
    model = scene.loaded.model
    neurons = register_neurons(model, x[first], stage=layer + 1, factor=float(factor))
    most = min(MOST_MOVED, neurons.score.numel())
    count = min(MOVED, most) if state.moved is None else state.moved
    if not 1 <= count <= most:
        raise PrismaError(f"expected to move 1 to {most} neurons; found {count}")
    images = torch.cat([x[others], scene.picture.x[None]])
    moved = test_time_registers(model, images, neurons, n=count)
    return Found(neurons, moved, factor, layer, count, len(tested), (first, others))
