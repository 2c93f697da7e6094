"""What does a unit want to see? Images optimised for it, next to the real images that it answers to most.

Sources: Erhan et al. 2009, Visualizing Higher-Layer Features of a Deep Network; Olah et al. 2017; for ViTs Ghiasi et
al. 2212.06727; for what next to an optimum must stand, Geirhos et al. 2306.04719.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from prisma.analysis.readings import Activations, Objective, Reading
from prisma.analysis.result import Result
from prisma.analysis.top_images import Images, expect_data, image_parts, images_at
from prisma.bounds import expect_within
from prisma.data.transform import Transform
from prisma.errors import PrismaError
from prisma.features.ascent import Climbed, Plan, climb
from prisma.features.colors import Colors, expect_pictures
from prisma.features.honesty import Beside, activations, answers, beside_data, pictures_at, second_opinion
from prisma.features.images import FFT, Image, described
from prisma.features.maco import resized
from prisma.features.names import names_of
from prisma.features.objectives import as_objective
from prisma.features.paths import path_check
from prisma.features.robustness import Robustness
from prisma.features.subjects import Subject, subject_of
from prisma.loaded import Loaded
from prisma.pretrained.networks import Network
from prisma.progress import progress as progress_bar
from prisma.view.figures.sheet import draw_sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORED = 256  # images of the data from which colours and a spectrum are taken
OTHERS = 16  # images of the data with which paths are compared
MOST_TARGETS = 100_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Features(Result):
    """Images that were optimised, n = target x copy, and what real images and another model say.

    An optimum shows what a unit can be driven by, and not what it is used for. Trust it where its percentile is high,
    its path is near that of the top images (`path` between `other` and `natural`), and those images look alike.
    `metadata["targets"]` has the names of the targets, `metadata["layers"]` those of the layers of `path`.
    """

    AXES: ClassVar = {
        "images": ("image", "channel", "height", "width"),
        "target": ("image",),
        "activation": ("image",),
        "percentile": ("image",),
        "answer": ("image",),
        "second": ("image",),
        "second_answer": ("image",),
        "path": ("image", "layer"),
        "natural": ("image", "layer"),
        "other": ("image", "layer"),
        "alpha": ("image", "height", "width"),
        "history": ("image", "step"),
        "top_activation": ("target", "rank"),
        "top_index": ("target", "rank"),
        "top_images": ("target", "rank", "channel", "height", "width"),
    }
    UNDEFINED: ClassVar[frozenset[str]] = frozenset({"percentile", "second", "natural", "top_activation"})

    images: Tensor  # [n, channel, height, width] in [0, 1]
    target: Tensor  # [n]: the place of its target
    activation: Tensor  # [n]: the objective of the image as it is, without random changes
    percentile: Tensor  # [n]: the share of the data with a smaller number, in percent; NaN without data
    answer: Tensor  # [n]: the class that the model gives it; -1 where it has none
    second: Tensor | None = None  # [n]: the objective in the second model; NaN for what is inside of a model
    second_answer: Tensor | None = None  # [n]: the class that the second model gives it
    path: Tensor | None = None  # [n, layer]: rank correlation of activations with the top images
    natural: Tensor | None = None  # [n, layer]: of the top images with each other
    other: Tensor | None = None  # [n, layer]: of the top images with other images
    alpha: Tensor  # [n, height, width]: how much each pixel mattered on the way, 1 at most
    history: Tensor  # [n, step]: the objective of the changed images at each step
    top_activation: Tensor | None = None  # [target, rank]: the largest numbers of real images
    top_index: Tensor | None = None  # [target, rank]: which images they are
    top_images: Tensor | None = None  # [target, rank, channel, height, width] in [0, 1]

    def report(self, classes: Sequence[str] = ()) -> str:
        """A line for each image: what it reaches, and what the data reach."""
        lines = []
        for i, target in enumerate(self.target.tolist()):
            line = f"{self.metadata['targets'][target]}: {self.activation[i]:.4g}"
            if self.top_activation is not None:
                largest = self.top_activation[target, 0]
                line += f", above {self.percentile[i]:.1f} % of the data (their largest {largest:.4g})"
            answer = int(self.answer[i])
            name = classes[answer] if 0 <= answer < len(classes) else answer
            lines.append(line + ("" if answer < 0 else f"; classified as {name}"))
        return "\n".join(lines)

    def plot(self, array: str | None = None) -> "Figure":
        """A contact sheet: a row for each target, its optima first, then its top images."""
        if array not in (None, "images"):
            return super().plot(array)
        copies = len(self.images) // max(1, len(self.metadata["targets"]))
        rows = self.images.detach().cpu().unflatten(0, (-1, copies))
        captions = ["" if torch.isnan(x) else f"above {x:.1f} % of the data" for x in self.percentile[::copies]]
        return draw_sheet(rows, self.top_images, self.metadata["targets"], captions)


def visualize(
    model: "Loaded | Network | nn.Module",
    objectives: Any,
    image: Image | None = None,
    *,
    steps: int = 256,
    seed: int = 0,
    lr: float | None = None,
    copies: int = 1,
    robustness: Robustness | None = None,
    start: Tensor | None = None,
    data: Images | None = None,
    k: int = 5,
    second: "Loaded | Network | nn.Module | None" = None,
    transform: Transform | None = None,
    batch: int | None = None,
    progress: bool = False,
) -> Features:
    """Which image drives each of these units most, and how does it compare with real images?

    Read `activation` beside `top_activation`, `percentile` (100: above every real image) and `path`.

    Args:
        model: what `prisma.load` returns, a ViT, a `Network`, or any module of images in evaluation mode.
        objectives: one or several: objectives, metrics of logits, or classes. No result depends on the others.
        image: the parameterisation, by default `FFT()`.
        steps, lr: of Adam; by default the parameterisation's rate. seed: of the first numbers and the random changes.
        copies: images of each target.
        robustness: the random changes at every step; `robustness.PLAIN` is none.
        start: pictures to begin with, [channel, height, width] or one for each target, in [0, 1].
        data: inputs of the model [n, channel, height, width] or pictures: for colours and spectra, and to compare with.
        k: how many top images of each target.
        second: another model, such as the same mouse of another seed, which looks at the optima by its own transform.
        transform: of a `model` that is a module.
        batch: images that are optimised together. progress: show a progress bar on stderr.

    Raises:
        PrismaError: a site or unit that does not exist (with the nearest names), an objective that does not depend on
            the image, or images that do not fit.
        NotFiniteError: an objective is not finite.
    """
    _expect_counts(steps=steps, copies=copies, k=k, batch=1 if batch is None else batch)
    expect_within("seed", seed)
    subject, targets = subject_of(model, transform), _targets(objectives)
    second_one = None if second is None else _second(second, subject)
    _expect_fitting(subject, data)
    bound = _bound(subject, targets)
    chosen, colors = _prepared(FFT() if image is None else image, subject, data, start)
    plan = Plan(chosen, colors, steps, seed, copies, robustness or Robustness(), chosen.lr if lr is None else lr)
    beginning = None if start is None else _beginning(start, len(targets), copies, subject)
    found = _climbed(subject, bound, plan, beginning, subject.per_pass if batch is None else batch, progress)
    return Features(
        metadata={**_described(targets, plan, data), "layers": [] if data is None else list(subject.depth)},
        images=found.pixels.cpu(),
        target=torch.arange(len(targets)).repeat_interleave(copies),
        alpha=found.alpha.cpu(),
        history=found.history.cpu(),
        **_judged(subject, bound, found.pixels, data, copies, k, second_one),
    )


def _expect_counts(**counts: int) -> None:
    for name, value in counts.items():
        if type(value) is not int or value < 1:
            raise PrismaError(f"expected {name} to be a whole number of at least 1; found {value!r}")


def _expect_fitting(subject: Subject, data: Images | None) -> None:
    """Raise PrismaError unless these are inputs of the network, so that nothing fails after the optimisation."""
    if data is not None:
        expect_data(data)
        subject.expect_inputs(data if isinstance(data, Tensor) else images_at(data, [0]))


def _second(model: "Loaded | Network | nn.Module", subject: Subject) -> Subject:
    """The other model. Raises PrismaError: it takes images of another shape."""
    found = subject_of(model)
    if found.shape != subject.shape:
        raise PrismaError(f"expected a second model of images {list(subject.shape)}; found one of {list(found.shape)}")
    return found


def _bound(subject: Subject, targets: Sequence[Reading]) -> list[Reading]:
    """The objectives with what they need of other pictures. Raises PrismaError: another site or model."""
    subject.expect(dict.fromkeys(site for x in targets for site in x.reads))
    for x in targets:
        if isinstance(x, Objective):
            x.expect_fits(subject.model)

    def read(pictures: Tensor, sites: Sequence[str]) -> Activations:
        return subject.read(expect_pictures(pictures, subject.shape).to(subject.device), sites)

    with torch.no_grad():
        return [x.bound(read) if isinstance(x, Objective) else x for x in targets]


def _climbed(
    subject: Subject, objectives: Sequence[Reading], plan: Plan, start: Tensor | None, batch: int, progress: bool
) -> Climbed:
    """All targets, as many together as a batch of images holds."""
    copies, found = plan.copies, []
    subject = subject.quick(sorted({site for x in objectives for site in x.reads}))
    per_pass = max(1, batch // (copies * plan.robustness.ensemble))
    with progress_bar(-(-len(objectives) // per_pass) * plan.steps, "features", "step", shown=progress) as bar:
        for first in range(0, len(objectives), per_pass):
            own = None if start is None else start[first * copies : (first + per_pass) * copies]
            found.append(climb(subject, objectives[first : first + per_pass], plan, own, bar.update))
    return Climbed(*(torch.cat([getattr(x, name) for x in found]) for name in ("pixels", "alpha", "history")))


def _described(targets: Sequence[Reading], plan: Plan, data: Images | None) -> dict[str, Any]:
    """The settings, as JSON values."""
    return {
        "analysis": "features", "targets": names_of(targets), "image": described(plan.image),
        "steps": plan.steps, "seed": plan.seed, "copies": plan.copies, "lr": plan.lr,
        "robustness": repr(plan.robustness), "data": 0 if data is None else len(data),
    }  # fmt: skip


def _targets(objectives: Any) -> list[Reading]:
    several = list(objectives) if isinstance(objectives, list | tuple | range) else [objectives]
    if not 0 < len(several) <= MOST_TARGETS:
        raise PrismaError(f"expected 1 to {MOST_TARGETS:,} objectives; found {len(several)}")
    return [as_objective(x) for x in several]


def _prepared(image: Image, subject: Subject, data: Images | None, start: Tensor | None) -> tuple[Image, Colors]:
    """The parameterisation with what it needs of pictures, and their colours."""
    pictures = image.pictures
    if pictures is None and data is not None:
        pictures = pictures_at(subject, data, range(0, len(data), max(1, -(-len(data) // COLORED))))
    elif pictures is None and start is not None:
        pictures = start if start.ndim == 4 else start[None]
    if pictures is None:
        return image.of_data(None), Colors.plain(subject.shape[0])
    seen = resized(pictures, subject.shape)
    colors = Colors.of(seen)
    return image.of_data(colors.colors(seen)), colors


def _beginning(start: Tensor, targets: int, copies: int, subject: Subject) -> Tensor:
    """[target x copy, channel, height, width]: what each image begins with."""
    pictures = expect_pictures(start if start.ndim == 4 else start[None], subject.shape)
    if len(pictures) not in (1, targets):
        raise PrismaError(f"expected one picture to begin with, or one for each of {targets}; found {len(pictures)}")
    return pictures.expand(targets, -1, -1, -1).repeat_interleave(copies, 0)


def _judged(
    subject: Subject,
    objectives: Sequence[Reading],
    pixels: Tensor,
    data: Images | None,
    copies: int,
    k: int,
    second: Subject | None,
) -> dict[str, Tensor]:
    """What stands next to the optima."""
    reached = activations(subject, objectives, pixels, copies)
    found = {"activation": reached, "answer": answers(subject, pixels), "percentile": reached * torch.nan}
    if second is not None:
        found["second"], found["second_answer"] = second_opinion(subject, second, objectives, pixels, copies)
    if data is None:
        return found
    beside: Beside = beside_data(subject, objectives, data, reached, copies, k)
    tops = torch.stack([pictures_at(subject, data, rows) for rows in beside.images.tolist()])
    found |= {
        "percentile": beside.percentile, "top_activation": beside.values, "top_index": beside.images,
        "top_images": tops,
    }  # fmt: skip
    if not subject.depth:  # no part gives a tensor
        return found
    others = subject.pixels(next(image_parts(data, OTHERS)))
    return found | path_check(subject, pixels, [top for top in tops for _ in range(copies)], others)
