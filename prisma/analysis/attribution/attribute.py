"""Feature attribution: one number for each token, which says how much it did for a chosen number.

`methods` has the methods, `games` what an absent patch is, `questions` what can be explained.

Shapes: B image, T token, P patch, S player.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from prisma.analysis.attribution.games import Game, TokenGame, absence_of
from prisma.analysis.attribution.methods import Method, Plan, method_named
from prisma.analysis.attribution.pixel_game import PixelGame
from prisma.analysis.attribution.players import players_of
from prisma.analysis.attribution.questions import as_target, name_of
from prisma.analysis.border import guarded
from prisma.analysis.readings import Reading
from prisma.analysis.result import Result
from prisma.batching import inputs_per_pass
from prisma.errors import PrismaError
from prisma.metrics import Metric, Target
from prisma.view.figures.maps import chosen_images, draw_images
from prisma.vit import ViT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEAST = 1e-5
"""A completeness error below this share of what a map moves is one of rounding, and is reported as this."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Attribute(Result):
    """How much each token did for the target, in the target's own unit where the method is complete.

    `delta` is the completeness error: the sum of the map minus what it should divide, `change`. It is NaN for methods
    that divide nothing (occlusion, RISE, LIME); compare their maps within an image only.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "patches": ("image", "time", "row", "column"),
        "map": ("image", "token"),
        "delta": ("image",),
        "change": ("image",),
        "value": ("image",),
    }
    UNDEFINED: ClassVar[frozenset[str]] = frozenset({"delta", "change"})

    map: Tensor  # [image, token]: prefix tokens first, then patches
    delta: Tensor  # [image]: the sum of the map minus `change`
    change: Tensor  # [image]: what the map divides: the target's change from the baseline or the empty image
    value: Tensor  # [image]: the target for the image itself

    @property
    def patches(self) -> Tensor:
        """[image, (time,) row, column]: the map over the patches alone."""
        grid = self.metadata["grid"]
        patches = grid[0] * grid[1] * grid[2]
        return self.map[:, self.map.shape[1] - patches :].unflatten(1, grid if grid[0] > 1 else grid[1:])

    @property
    def axes(self) -> dict[str, tuple[str, ...]]:
        image = {"patches": ("image", "row", "column")} if self.metadata["grid"][0] == 1 else {}
        return {**super().axes, **image}

    @property
    def error(self) -> Tensor:
        """[image]: the size of `delta` as a share of all that the map moves, the sum of its absolute values."""
        return self.delta.abs() / self.map.abs().sum(1).clamp(min=torch.finfo(self.map.dtype).tiny)

    def report(self, classes: Sequence[str] = ()) -> str:
        """One line: the method, and how exactly its map adds up."""
        method, n = self.metadata["method"], len(self.map)
        if bool(self.delta.isnan().all()):
            return f"{method} of {n} images; it divides nothing, so there is no completeness error"
        share = max(self.error.max().item(), LEAST)
        return f"{method} of {n} images; completeness error at most {share:.2g} of what a map moves"

    def plot(
        self,
        array: str | None = None,
        *,
        pictures: Tensor | None = None,
        masks: Tensor | None = None,
        images: Sequence[int] | None = None,
        beside: Sequence["Attribute"] = (),
    ) -> "Figure":
        """The maps over patches, by default the first six.

        Args:
            pictures: the same images, [image, channel, (frame,) height, width] in [0, 1], drawn above the maps.
            masks: [image, (frame,) height, width], whose outlines are drawn.
            images: indices of the images to draw.
            beside: maps of the same images by other methods, drawn below: the causal partner of a map is "occlusion",
                what the target loses without each patch.

        Raises:
            PrismaError: an image that does not exist, pictures, masks or maps that do not fit.
        """
        if array not in (None, "patches"):
            return super().plot(array)
        maps = {str(x.metadata["method"]).replace("_", " "): x.arrays["patches"] for x in (self, *beside)}
        chosen = chosen_images(len(self.map), images)
        return draw_images(maps, pictures, masks, chosen, title=f"attribution of {self.metadata['target']}")


@guarded
def attribute(
    model: ViT,
    images: Tensor,
    target: Metric | Reading | Target | None = None,
    method: str = "integrated_gradients",
    *,
    baseline: Tensor | None = None,
    absent: str | None = None,
    samples: int | None = None,
    segments: Tensor | int | None = None,
    seed: int = 0,
    tolerance: float = 0.001,
    batch: int | None = None,
) -> Attribute:
    """How much did each patch do for this number?

    A positive number raised the target, a negative one lowered it, both in the target's own unit, where the method
    divides a change among the tokens (`delta` says how exactly). Methods answer different questions, and maps that look
    convincing may be wrong: `prisma.map_curves` and `prisma.compare_maps` measure them.

    Args:
        images: [image, channel, (frame,) height, width].
        target: a class, or one for each image; a metric of the logits (`Logit`, `LogitDiff`, `Similarity` for a prompt
            of a CLIP); or a `Neuron`. By default the logit of each image's predicted class.
        method: one of `methods.METHODS`.
        baseline: [1 or image, channel, ...], what stands where the image is absent; by default zeros, the mean colour
            of most transforms. For gradient_shap, any number of images, of which one is drawn for each step.
        absent: of methods that remove patches: "dropped" (their tokens are left out) or "baseline". By default dropped,
            where no baseline is given and the model's readout works without patches.
        samples: runs per image; by default as `methods.METHODS` says. Integrated gradients begin with that number, and
            images whose map does not add up get twice as many, again and again.
        segments: players that are groups of patches: a number of rectangles, or labels [(image,) row, column]. By
            default each patch is a player. A segment's value is divided equally among its patches.
        seed: of what is drawn; image i has `seed + i`.
        tolerance: the largest completeness error, as a share of what a map moves (`Attribute.error`).
        batch: runs in one pass; by default as many as fit in 256 MiB.

    Returns:
        `map` [image, token], `delta` [image], `change` [image], `value` [image].

    Raises:
        PrismaError: no such method or target; a baseline, segments or samples that do not fit; a model from which
            patches cannot be dropped; or a map that does not add up to within the tolerance.
    """
    chosen = method_named(method)
    if absent is not None and not chosen.removes:
        raise PrismaError(f"expected absent only for methods that remove patches; found it for {method}")
    _expect_baseline_used(method, baseline)
    with torch.inference_mode(False):
        asked = as_target(model, target, None if target is not None else predicted_logits(model, images, batch))
        fill, drawn = baseline_of(images, baseline, many=method == "gradient_shap")
        kind = absence_of(model.config, absent, baseline) if chosen.removes else "baseline"
        game = TokenGame(model, images, fill, asked, batch, kind)
        return _explained(game, method, model.config.grid, samples, segments, seed, tolerance, drawn)


@guarded
def attribute_network(
    network: nn.Module,
    images: Tensor,
    target: Metric | Target,
    method: str = "integrated_gradients",
    *,
    patch: int = 16,
    baseline: Tensor | None = None,
    samples: int | None = None,
    segments: Tensor | int | None = None,
    seed: int = 0,
    tolerance: float = 0.001,
    batch: int | None = None,
) -> Attribute:
    """As `attribute`, for any network from images to logits, such as a CNN: players are squares of `patch` pixels.

    What is absent is the baseline. Methods that look inside a vision transformer are refused.
    """
    asked = as_target(None, target, None)
    _expect_baseline_used(method, baseline)
    with torch.inference_mode(False):
        fill, drawn = baseline_of(images, baseline, many=method == "gradient_shap")
        game = PixelGame(network, images, fill, asked, batch, patch)
        return _explained(game, method, (1, *game.grid), samples, segments, seed, tolerance, drawn)


def _explained(
    game: Game,
    method: str,
    grid: tuple[int, int, int],
    samples: int | None,
    segments: Tensor | int | None,
    seed: int,
    tolerance: float,
    drawn: Tensor | None,
) -> Attribute:
    """The map of a game by one method."""
    chosen = method_named(method)
    _expect_used(chosen, method, samples=samples, segments=segments, tolerance=tolerance)
    refined = tolerance if samples is None else None
    samples = chosen.samples if samples is None else samples
    if chosen.samples and samples < 2:
        raise PrismaError(f"expected at least 2 samples; found {samples}")
    plan = Plan(samples, players_of(segments, grid, len(game.images), game.images.device), seed, drawn, refined)
    map_BT, change = chosen.run(game, plan)
    value = game.whole.detach()
    change = torch.full_like(value, torch.nan) if change is None else change.detach().to(value)
    map_BT = map_BT.detach().to(value)
    settings = {"samples": samples or None, "seed": seed} if chosen.samples else {}
    removal = (
        {"absent": getattr(game, "absent", "baseline"), "segmented": segments is not None} if chosen.removes else {}
    )
    metadata = {"analysis": "attribute", "method": method, "target": name_of(game.target), "grid": list(grid)}
    delta = map_BT.double().sum(1).to(value) - change
    found = Attribute(metadata={**metadata, **settings, **removal}, map=map_BT, delta=delta, change=change, value=value)
    if chosen.tolerated and bool((found.error > tolerance).any()):
        image = int(found.error.nan_to_num(0).argmax())
        raise PrismaError(
            f"expected a map that adds up to within {tolerance:g} of what it moves; found an error of "
            f"{found.error[image]:.2g} for image {image} by {method}: give more samples, or a larger tolerance"
        )
    return found


def _expect_used(
    chosen: Method, method: str, *, samples: int | None, segments: Tensor | int | None, tolerance: float
) -> None:
    """Raises PrismaError: a choice that this method does not know."""
    if segments is not None and not chosen.removes:
        raise PrismaError(f"expected segments only for methods that remove patches; found them for {method}")
    if samples is not None and not chosen.samples:
        raise PrismaError(f"expected samples only for methods that draw or integrate; found them for {method}")
    if tolerance < 0:
        raise PrismaError(f"expected a tolerance of at least 0; found {tolerance:g}")


def _expect_baseline_used(method: str, baseline: Tensor | None) -> None:
    chosen = method_named(method)
    if baseline is not None and not (chosen.begins or chosen.removes):
        raise PrismaError(f"expected a baseline only for methods that have one; found it for {method}")


def baseline_of(images: Tensor, baseline: Tensor | None, *, many: bool) -> tuple[Tensor, Tensor | None]:
    """The baseline of each image, and what baselines are drawn from, where they are."""
    if not len(images):
        raise PrismaError("expected at least one image; found none")
    if baseline is None:
        return torch.zeros_like(images), None
    if baseline.shape[1:] != images.shape[1:] or not (many or len(baseline) in (1, len(images))):
        raise PrismaError(
            f"expected a baseline {[1, *images.shape[1:]]}, or one for each image; found {list(baseline.shape)}"
        )
    baseline = baseline.to(images)
    return (baseline[:1] if many else baseline).expand_as(images), baseline if many else None


@torch.no_grad()
def predicted_logits(model: ViT, images: Tensor, batch: int | None) -> Tensor:
    """The logits [image, class] of plain runs."""
    return torch.cat([model(some) for some in images.split(inputs_per_pass(model, batch))])
