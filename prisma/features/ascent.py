"""The optimisation: images of many targets at once, each of which climbs its own objective.

A target's images begin with the same numbers and see the same random changes whichever other targets there are, and
neither the network (in evaluation mode) nor Adam mixes the images of a batch. So results differ by rounding at most.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prisma.analysis.readings import Activations, Reading
from prisma.errors import NotFiniteError, PrismaError, quoted, shown
from prisma.features.colors import Colors
from prisma.features.images import SMALL, Image
from prisma.features.names import name_of
from prisma.features.robustness import Robustness
from prisma.features.subjects import PIXELS, Subject

PATIENCE = 10  # steps without any gradient, after which an objective counts as constant
BETAS, EPSILON = (0.9, 0.999), 1e-8  # of Adam
LOOKED = 16  # steps between two looks at whether all numbers are finite


@dataclass(frozen=True)
class Plan:
    """How images climb: what is the same for all targets."""

    image: Image
    colors: Colors
    steps: int
    seed: int
    copies: int
    robustness: Robustness
    lr: float

    def __post_init__(self) -> None:
        if not (isinstance(self.lr, int | float) and math.isfinite(self.lr) and self.lr >= 0):
            raise PrismaError(f"expected a learning rate of at least 0; found lr={quoted(self.lr)}")


@dataclass(frozen=True, eq=False)
class Climbed:
    """Images at the end of their optimisation, n = target x copy."""

    pixels: Tensor  # [n, channel, height, width] in [0, 1]
    alpha: Tensor  # [n, height, width] in [0, 1]: how much each pixel mattered on the way
    history: Tensor  # [n, step]: the objective of the changed images at each step


@torch.inference_mode(False)
@torch.enable_grad()
def climb(
    subject: Subject,
    objectives: Sequence[Reading],
    plan: Plan,
    start: Tensor | None = None,
    on_step: Callable[[], None] = lambda: None,
) -> Climbed:
    """Optimise the images of some targets together.

    Args:
        start: pictures to begin with, [target x copy, channel, height, width] in [0, 1].

    Raises:
        PrismaError: an objective does not depend on the image.
        NotFiniteError: an objective is not finite; the target and the step are named.
    """
    generator = torch.Generator().manual_seed(plan.seed)
    numbers, rest = _begin(subject, len(objectives), plan, start, generator)

    def drawn() -> Tensor:
        """The images: with pictures to begin with, what no numbers give (black, white) stays beside them."""
        return (plan.colors.pixels(plan.image.draw(numbers, subject.shape)) + rest).clamp(0, 1)

    sites = sorted({site for objective in objectives for site in objective.reads})
    means, squares = ([torch.zeros_like(x) for x in numbers] for _ in range(2))
    n, history = len(objectives) * plan.copies, []
    alpha = torch.zeros(n, *subject.shape[1:], device=subject.device)
    moved = torch.zeros(n, dtype=torch.bool, device=subject.device)
    for step in range(plan.steps):
        pixels = drawn()
        values = _values(subject, objectives, sites, pixels, plan, step / plan.steps, generator)
        *gradients, of_pixels = torch.autograd.grad(-values.sum(), [*numbers, pixels], allow_unused=True)
        if of_pixels is None or any(gradient is None for gradient in gradients):
            raise PrismaError(_constant(objectives, 0))
        history.append(values.detach())
        felt = of_pixels.abs().sum(1)
        alpha += felt
        if step < PATIENCE:
            moved |= felt.flatten(1).any(1)
        if step == min(PATIENCE, plan.steps) - 1 and not bool(moved.all()):
            raise PrismaError(_constant(objectives, int((~moved).nonzero()[0]) // plan.copies))
        if step % LOOKED == 0 or step == plan.steps - 1:
            _expect_finite(values, objectives, plan.copies, step)
        for x, gradient, mean, square in zip(numbers, gradients, means, squares, strict=True):
            _adam(x, gradient, mean, square, plan.lr, step)
        on_step()
    with torch.no_grad():
        pixels = drawn()
    largest = alpha.flatten(1).amax(1).clamp(min=torch.finfo(alpha.dtype).tiny)
    curve = torch.stack(history, 1) if history else alpha.new_zeros(n, 0)
    return Climbed(pixels, alpha / largest[:, None, None], curve)


@torch.no_grad()
def _adam(x: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, lr: float, step: int) -> None:
    """One step of Adam (Kingma and Ba 1412.6980), down the gradient; torch's own imports its compiler first."""
    mean.lerp_(gradient, 1 - BETAS[0])
    square.lerp_(gradient.square(), 1 - BETAS[1])
    spread = (square / (1 - BETAS[1] ** (step + 1))).sqrt() + EPSILON
    x -= lr / (1 - BETAS[0] ** (step + 1)) * mean / spread


def _begin(
    subject: Subject, targets: int, plan: Plan, start: Tensor | None, generator: torch.Generator
) -> tuple[list[Tensor], Tensor | float]:
    """(the numbers of all images at the start, what is added to what they draw).

    The copies of a target differ, the targets do not. With pictures to begin with, the first copy is the picture, and
    the others are drawn from numbers a little beside its own: from equal ones, objectives that are to part the copies
    would have no gradient.
    """
    if start is None:
        some = plan.image.begin(plan.copies, subject.shape, generator)
        numbers = tuple(x.repeat(targets, *[1] * (x.ndim - 1)) for x in some)
        return [x.to(subject.device).detach().clone().requires_grad_() for x in numbers], 0.0
    pictures = start.to(subject.device)
    exact = plan.image.encode(plan.colors.colors(pictures))
    with torch.no_grad():
        rest = pictures - plan.colors.pixels(plan.image.draw(exact, subject.shape))
    return [_parted(x.detach(), plan.copies, generator).requires_grad_() for x in exact], rest


def _parted(x: Tensor, copies: int, generator: torch.Generator) -> Tensor:
    """Numbers [target x copy, ...], with a little noise in all copies but the first; the same for all targets."""
    noise = SMALL * torch.randn(copies, *x.shape[1:], generator=generator)
    noise[0] = 0
    return x + noise.to(x).repeat(len(x) // copies, *[1] * (x.ndim - 1))


def _values(
    subject: Subject,
    objectives: Sequence[Reading],
    sites: Sequence[str],
    pixels: Tensor,
    plan: Plan,
    share: float,
    generator: torch.Generator,
) -> Tensor:
    """[n]: the objective of each image, averaged over its changed versions."""
    versions = plan.robustness.ensemble
    changed = plan.robustness(pixels, plan.copies, share, generator)
    seen = subject.read(changed, sites)
    acts = Activations({**seen, PIXELS: pixels.repeat(versions, 1, 1, 1)}, seen.axes, seen.grid)
    parts = acts.split(plan.copies)
    values = [objectives[i % len(objectives)].value(part) for i, part in enumerate(parts)]
    if not all(x.requires_grad for x in values):
        raise PrismaError(_constant(objectives, [x.requires_grad for x in values].index(False) % len(objectives)))
    return torch.cat(values).float().view(versions, -1).mean(0)


def _constant(objectives: Sequence[Reading], target: int) -> str:
    return (
        f"expected an objective that the image changes; found that {shown(name_of(objectives[target]))} has no "
        "gradient in the pixels: it is constant, or a unit that is off in all images so far (start= of "
        "prisma.features.visualize begins with a picture in which it is on)"
    )


def _expect_finite(values: Tensor, objectives: Sequence[Reading], copies: int, step: int) -> None:
    if not bool((finite := values.isfinite()).all()):
        target = int((~finite).nonzero()[0]) // copies
        raise NotFiniteError(
            f"expected finite numbers; found {values[~finite][0].item()} for {shown(name_of(objectives[target]))} at "
            f"step {step}"
        )
