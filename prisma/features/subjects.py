"""The network that is looked at: a model of Prisma by its sites, or any `nn.Module` by the names of its parts.

Both are given pixels in [0, 1], and compute nothing after the last site that is asked for. Nothing stays on a network.
What is read of a map is [batch, channel, row, column], also where a part of a network has the channels last.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from prisma.analysis.attention.token_grid import TokenGrid
from prisma.analysis.readings import MAP, Activations
from prisma.batching import block_memory, inputs_per_pass
from prisma.config import ViTConfig
from prisma.data.transform import Transform
from prisma.errors import PrismaError, nearest, quoted
from prisma.features.folding import folded
from prisma.features.parts import AXES, TRIED, channels_last, expect_readable, logits_of, outermost, outputs_of, why_not
from prisma.features.scaled import Scaled
from prisma.inventory import site_names
from prisma.loaded import Loaded
from prisma.plain import expect_unwrapped, uncompiled
from prisma.pretrained.networks import Network
from prisma.runs import expect_model, record
from prisma.sites import axes_of, canonical, matching

PIXELS, OUTPUT = "pixels", "logits"
"""The site that every network has: the image in [0, 1]. And the output of a foreign network as a whole."""
IMAGES = 32  # of a foreign network at once: how much memory one takes is not known
AREA = 60_000  # pixels of a foreign network at once on a CPU: larger arrays leave its caches and are given back to the
# system after every step; 32 images of 224 pixels at once take three times as long for each as one
EXACT = 4  # bytes of a number from which on rounding is too small to matter


class Subject(Protocol):
    """What is looked at."""

    model: Any  # the network
    shape: tuple[int, int, int]  # (channel, height, width) of its images
    labels: Sequence[str]  # names of its classes, if they are known
    sites: Sequence[str]  # what it can be asked for
    device: torch.device
    per_pass: int  # how many images an optimisation holds at once, unless it is told

    @property
    def depth(self) -> Sequence[str]:
        """Sites from the input to the output, along which paths are compared."""

    def expect(self, sites: Iterable[str]) -> None:
        """Raise PrismaError, with the nearest names, unless it has all of these sites."""

    def read(self, pixels: Tensor, sites: Sequence[str]) -> Activations:
        """The activations at these sites of pixels [batch, channel, height, width] in [0, 1]."""

    def quick(self, sites: Sequence[str]) -> "Subject":
        """What gives the same numbers at these sites, up to rounding, in less time: for many steps."""

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pixels in [0, 1] -> its inputs."""

    def pixels(self, inputs: Tensor) -> Tensor:
        """The inverse."""

    def expect_inputs(self, inputs: Tensor) -> None:
        """Raise PrismaError unless these are inputs [image, channel, height, width] that pixels can become."""


class OfViT(Scaled):
    """A model of Prisma."""

    def __init__(self, model: Any, transform: Transform | None, labels: Sequence[str] = ()) -> None:
        expect_model(model)
        config = model.config
        if not isinstance(config, ViTConfig) or config.frames != 1:
            raise PrismaError("expected a model of images; found one of video or text")
        self.model: Any = copy.copy(uncompiled(model))
        expect_unwrapped(self.model)
        known = model.pixel_range if transform is None else transform.range
        self.model.pixel_range = None  # of the copy alone: pixels on the way are not a picture's
        weight = next(model.parameters())
        super().__init__(known or ((0.0, 1.0),) * config.channels, weight.device, weight.dtype)
        self.shape = (config.channels, *config.image_sides)
        if transform is not None and (len(transform.mean), *transform.size) != self.shape:
            raise PrismaError(
                f"expected a transform to images {list(self.shape)}; found one to "
                f"{[len(transform.mean), *transform.size]}"
            )
        self.labels: Sequence[str] = labels
        self.sites: Sequence[str] = site_names(config)
        self.grid = TokenGrid.of(config)
        self.per_pass = inputs_per_pass(model, memory=2 * (config.n_layers + 1) * block_memory(model))

    @property
    def depth(self) -> Sequence[str]:
        return [site for site in self.sites if site.endswith(".resid_post")] or ["embed"]

    def expect(self, sites: Iterable[str]) -> None:
        for site in sites:
            if site != PIXELS and matching(site, self.sites) != [site]:
                raise PrismaError(f"expected the name of one site; found {quoted(site)}")

    def read(self, pixels: Tensor, sites: Sequence[str]) -> Activations:
        wanted = [site for site in sites if site != PIXELS]
        acts = record(self.model, self.normalise(pixels), wanted, stop=True)[1] if wanted else {}
        return Activations({**acts, PIXELS: pixels}, {**{s: axes_of(s) for s in wanted}, PIXELS: MAP}, self.grid)

    def quick(self, sites: Sequence[str]) -> "OfViT":
        """Itself."""
        return self


class _Enough(Exception):  # noqa: N818 - no error
    """All sites were reached: the rest of the forward is not needed."""


class OfModule(Scaled):
    """Any network of images, whose parts have dotted names; `logits` is its output."""

    def __init__(self, network: Network) -> None:
        model, transform = network.model, network.transform
        weight = next(model.parameters(), torch.zeros(()))
        super().__init__(transform.range, weight.device, weight.dtype)
        self._network = network
        self.labels: Sequence[str] = network.labels
        self.model: Any = model
        self.shape = network.input_shape
        self._parts = {canonical(name): part for name, part in model.named_modules() if name}
        self._checked: set[str] = set()
        self.sites: Sequence[str] = [*self._parts, OUTPUT]
        few = max(1, AREA // (self.shape[1] * self.shape[2]))
        self.per_pass = min(IMAGES, few) if weight.device.type == "cpu" else IMAGES

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pixels in [0, 1] -> its inputs; on a CPU channels last, which its convolutions compute fastest."""
        inputs = super().normalise(pixels)
        return inputs.to(memory_format=torch.channels_last) if inputs.device.type == "cpu" else inputs

    @cached_property
    def depth(self) -> Sequence[str]:
        """The outermost parts that give one tensor once in a run, in the order in which they do."""
        gave: dict[str, list[bool]] = {}

        def note(site: str, part: nn.Module, inputs: Any, output: Any) -> None:
            gave.setdefault(site, []).append(why_not(output) is None)

        output = outputs_of(self._parts, self._tried, note)
        found = set(outermost(self.model, "", {site for site, fits in gave.items() if fits == [True]}))
        return [site for site in gave if site in found] or ([] if why_not(logits_of(output)) else [OUTPUT])

    @cached_property
    def _last(self) -> Mapping[str, bool | None]:
        """Whether the map that each part gives has its channels last; None where that is not known."""
        return channels_last(self._parts, self._tried)

    def _tried(self) -> Any:
        return self.model(self.normalise(self._grey()))

    def _grey(self) -> Tensor:
        return torch.full((TRIED, *self.shape), 0.5)

    def expect(self, sites: Iterable[str]) -> None:
        wanted = [site for site in sites if site != PIXELS]
        for site in wanted:
            if site != OUTPUT and site not in self._parts:
                raise PrismaError(
                    f"no part of this network is called {quoted(site)}; the nearest are {nearest(site, self._parts)}"
                )
        missing = [site for site in wanted if site not in self._checked]
        if missing:
            with torch.no_grad():
                found = self._run(self._grey(), missing, whole=True)
            for site, x in found.items():
                if x.ndim == 4 and self._last.get(site, False) is None:
                    raise PrismaError(
                        f"expected a part that has its channels where the parts beside it tell; found {site}, which "
                        f"gives {list(x.shape)}, and it is not known which of the last three axes is that of channels"
                    )
            self._checked |= set(missing)

    def read(self, pixels: Tensor, sites: Sequence[str]) -> Activations:
        wanted = [site for site in sites if site != PIXELS]
        found = self._run(pixels, wanted) if wanted else {}
        for site, x in found.items():
            if x.ndim == 4 and self._last.get(site):
                found[site] = x.movedim(-1, 1)
        return Activations({**found, PIXELS: pixels}, {**{s: AXES[x.ndim] for s, x in found.items()}, PIXELS: MAP})

    def quick(self, sites: Sequence[str]) -> "OfModule":
        """With batch norms as part of the convolutions before them, where that changes nothing but rounding."""
        wanted = [site for site in sites if site != PIXELS]
        if not wanted or self.dtype.itemsize < EXACT:
            return self
        noise = torch.rand(TRIED, *self.shape, generator=torch.Generator().manual_seed(0))

        def run(model: nn.Module) -> dict[str, Tensor]:
            return OfModule(replace(self._network, model=model))._run(noise, wanted)

        names = [name for name, _ in self.model.named_modules() if canonical(name) in wanted]
        with torch.no_grad():
            model = folded(self.model, run, names)
        if model is self.model:
            return self
        found = OfModule(replace(self._network, model=model))
        found._last = self._last  # which would take a run of all parts, and some may look into one that is gone
        return found

    def _run(self, pixels: Tensor, sites: Sequence[str], *, whole: bool = False) -> dict[str, Tensor]:
        """What the parts give. A run that is not whole ends at the last of them."""
        found: dict[str, Tensor] = {}
        inside = {site for site in sites if site in self._parts}

        def keep(site: str, output: Any) -> Any:
            """Read a part. The run goes on with a copy, since the next part may change what it is given in place."""
            if whole:
                expect_readable(site, output, again=site in found)
            found[site] = output
            if not whole and found.keys() >= set(sites):
                raise _Enough
            return output.clone() if isinstance(output, Tensor) else output

        hooks = [
            self._parts[site].register_forward_hook(lambda _, __, output, site=site: keep(site, output))
            for site in inside
        ]
        try:
            output = logits_of(self.model(self.normalise(pixels)))
        except _Enough:
            return found
        finally:
            for hook in hooks:
                hook.remove()
        if missed := inside - found.keys():
            raise PrismaError(f"expected a run to reach {', '.join(sorted(missed))}; found that it does not")
        if OUTPUT in sites and OUTPUT not in inside:
            if whole:
                expect_readable(OUTPUT, output, again=False)
            found[OUTPUT] = output
        return found


def subject_of(model: "Loaded | Network | nn.Module", transform: Transform | None = None) -> Subject:
    """The network, as something to look at.

    Args:
        model: what `prisma.load` returns, its model, a `Network`, or any network of images.
        transform: from pictures to inputs; of a loaded model and a `Network` its own, if it has one. A model of Prisma
            whose transform is not known is given pixels in [0, 1] as they are.

    Raises:
        PrismaError: a network of something else than images, in training, or without a transform.
    """
    if isinstance(model, Loaded):
        return OfViT(model.model, transform or model.transform, model.labels)
    if isinstance(model, Network):
        return OfModule(model if transform is None else replace(model, transform=transform))
    if not isinstance(model, nn.Module):
        raise PrismaError(f"expected a model or a network of torch; found {quoted(model)}")
    if isinstance(getattr(model, "config", None), ViTConfig):
        return OfViT(model, transform)
    if transform is None:
        raise PrismaError(
            f"expected a transform, which says size, mean and std of the images of a {type(model).__name__}; found "
            "none: prisma.features.Network(module, prisma.data.transform.Transform((height, width), mean, std))"
        )
    return OfModule(Network(model, transform))
