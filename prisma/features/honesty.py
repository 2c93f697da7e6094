"""What stands next to an optimum: the same number for real images, and what another model says.

Without these an optimum is a picture that convinces. All are measured without the random changes of the optimisation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prisma.analysis.readings import Reading
from prisma.analysis.top_images import Images, Largest, image_parts, images_at
from prisma.errors import NotFiniteError, PrismaError
from prisma.features.subjects import OUTPUT, PIXELS, Subject

COPIED = frozenset({OUTPUT, PIXELS})
"""Sites that mean the same in a model of another seed."""
SOME = 64  # images of the data that are read together, and that stand for all others


@dataclass(frozen=True, eq=False)
class Beside:
    """The objectives on a data set."""

    percentile: Tensor  # [n]: the share of images with a smaller number than the optimum's, in percent
    values: Tensor  # [target, rank], from the largest down
    images: Tensor  # [target, rank]: indices into the data set


def _together(subject: Subject) -> int:
    """How many images are read together, without gradients."""
    return min(SOME, subject.per_pass)


@torch.no_grad()
def activations(subject: Subject, objectives: Sequence[Reading], pixels: Tensor, copies: int) -> Tensor:
    """[n]: the objective of each image as it is, n = target x copy."""
    sites = sorted({site for objective in objectives for site in objective.reads})
    found = []
    per_pass = max(1, _together(subject) // copies)
    for some in range(0, len(objectives), per_pass):
        own = objectives[some : some + per_pass]
        acts = subject.read(pixels[some * copies : (some + len(own)) * copies], sites)
        found += [x.value(part).float() for x, part in zip(own, acts.split(copies), strict=True)]
    return torch.cat(found).cpu()


@torch.no_grad()
def beside_data(
    subject: Subject, objectives: Sequence[Reading], data: Images, optimum: Tensor, copies: int, k: int
) -> Beside:
    """Where an optimum stands among real images, and which of those come nearest to it.

    An objective of several copies together has no number for one image: its rows are NaN.

    Args:
        data: inputs of the model, or pictures.
        optimum: [n], the objective of each optimum.
    """
    sites = sorted({site for objective in objectives for site in objective.reads})
    largest, below = Largest(k), torch.zeros(len(optimum), dtype=torch.int64)
    alone = [getattr(x, "per_image", True) for x in objectives]
    for some in image_parts(data, _together(subject)):
        acts = subject.read(subject.pixels(some), sites)
        values = torch.stack(
            [
                x.value(acts).float().cpu() if one else torch.zeros(len(some))
                for x, one in zip(objectives, alone, strict=True)
            ]
        )
        largest.add(values)
        below += (values.repeat_interleave(copies, 0) < optimum[:, None]).sum(1)
    known = torch.tensor(alone)
    percentile = torch.where(known.repeat_interleave(copies), 100 * below / largest.seen, torch.nan)
    return Beside(percentile, torch.where(known[:, None], largest.values, torch.nan), largest.images)


def pictures_at(subject: Subject, data: Images, rows: Sequence[int]) -> Tensor:
    """Images of a data set [row, channel, height, width] in [0, 1]."""
    return subject.pixels(images_at(data, rows)).cpu()


@torch.no_grad()
def answers(subject: Subject, pixels: Tensor) -> Tensor:
    """[n]: the class with the largest logit, -1 where a network has no classes."""
    try:
        subject.expect([OUTPUT])
    except PrismaError:
        return torch.full((len(pixels),), -1)
    found = [subject.read(some, [OUTPUT])[OUTPUT] for some in pixels.split(_together(subject))]
    if not all(x.isfinite().all() for x in found):
        raise NotFiniteError("expected finite outputs for these images; found NaN or infinities")
    return torch.cat([x.argmax(-1) if x.ndim == 2 and x.shape[1] else x.new_full((len(x),), -1) for x in found]).cpu()


def second_opinion(
    subject: Subject, second: Subject, objectives: Sequence[Reading], pixels: Tensor, copies: int
) -> tuple[Tensor, Tensor]:
    """(activation [n], class [n]) of optima in another model.

    An objective inside a model has no counterpart in one of another seed, nor has a logit in a model of other classes:
    its rows are NaN.
    """
    same = list(subject.labels) == list(second.labels) or not (subject.labels and second.labels)
    shared = COPIED if same else COPIED - {OUTPUT}
    found = torch.full((len(pixels),), torch.nan)
    for target, objective in enumerate(objectives):
        if shared.issuperset(objective.reads):
            own = slice(target * copies, (target + 1) * copies)
            found[own] = activations(second, [objective], pixels[own], copies)
    return found, answers(second, pixels)
