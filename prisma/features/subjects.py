"""The network that is looked at: a model of Prisma by its sites, or any `nn.Module` by the names of its parts.

Both are given pixels in [0, 1], and compute nothing after the last site that is asked for. Nothing stays on a network.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from prisma.analysis.attention.token_grid import TokenGrid
from prisma.analysis.readings import MAP, Activations
from prisma.batching import block_memory, inputs_per_pass
from prisma.config import ViTConfig
from prisma.data.transform import Transform
from prisma.errors import PrismaError, nearest, quoted
from prisma.inventory import site_names
from prisma.loaded import Loaded
from prisma.numbers import exact
from prisma.plain import expect_unwrapped, uncompiled
from prisma.runs import expect_model, record
from prisma.sites import axes_of, matching

PIXELS, OUTPUT = "pixels", "logits"
"""The site that every network has: the image in [0, 1]. And the output of a foreign network as a whole."""
AXES: Mapping[int, tuple[str, ...]] = {2: ("batch", "feature"), 3: ("batch", "token", "feature"), 4: MAP}
"""Number of axes of what a foreign part gives -> their names."""
IMAGES = 32  # of a foreign network at once: how much memory one takes is not known


class Subject(Protocol):
    """What is looked at."""

    shape: tuple[int, int, int]  # (channel, height, width) of its images
    device: torch.device
    depth: Sequence[str]  # sites from the input to the output, along which paths are compared
    per_pass: int  # how many images an optimisation holds at once, unless it is told

    def expect(self, sites: Iterable[str]) -> None:
        """Raise PrismaError, with the nearest names, unless it has all of these sites."""

    def read(self, pixels: Tensor, sites: Sequence[str]) -> Activations:
        """The activations at these sites of pixels [batch, channel, height, width] in [0, 1]."""

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pixels in [0, 1] -> its inputs."""

    def pixels(self, inputs: Tensor) -> Tensor:
        """The inverse."""


class _Scaled:
    """Pixels and inputs of a network, by the numbers that a black and a white pixel become."""

    def __init__(self, ends: Sequence[tuple[float, float]], device: torch.device, dtype: torch.dtype) -> None:
        low, high = torch.tensor(ends, dtype=torch.float32).T[:, :, None, None].to(device)
        self.device, self.dtype, self._low, self._span = device, dtype, low, high - low

    def normalise(self, pixels: Tensor) -> Tensor:
        return (self._low + pixels.to(self.device) * self._span).to(self.dtype)

    def pixels(self, inputs: Tensor) -> Tensor:
        return ((exact(inputs).to(self.device) - self._low) / self._span).clamp(0, 1)


class OfViT(_Scaled):
    """A model of Prisma."""

    def __init__(self, model: Any, transform: Transform | None) -> None:
        expect_model(model)
        config = model.config
        if not isinstance(config, ViTConfig) or config.frames != 1:
            raise PrismaError("expected a model of images; found one of video or text")
        self.model = copy.copy(uncompiled(model))
        expect_unwrapped(self.model)
        known = model.pixel_range if transform is None else transform.range
        self.model.pixel_range = None  # of the copy alone: pixels on the way are not a picture's
        weight = next(model.parameters())
        super().__init__(known or ((0.0, 1.0),) * config.channels, weight.device, weight.dtype)
        self.shape = (config.channels, *config.image_sides)
        self.grid, self._known = TokenGrid.of(config), site_names(config)
        self.depth: Sequence[str] = [site for site in self._known if site.endswith(".resid_post")] or ["embed"]
        self.per_pass = inputs_per_pass(model, memory=2 * (config.n_layers + 1) * block_memory(model))

    def expect(self, sites: Iterable[str]) -> None:
        for site in sites:
            if site != PIXELS and matching(site, self._known) != [site]:
                raise PrismaError(f"expected the name of one site; found {quoted(site)}")

    def read(self, pixels: Tensor, sites: Sequence[str]) -> Activations:
        wanted = [site for site in sites if site != PIXELS]
        acts = record(self.model, self.normalise(pixels), wanted, stop=True)[1] if wanted else {}
        return Activations({**acts, PIXELS: pixels}, {**{s: axes_of(s) for s in wanted}, PIXELS: MAP}, self.grid)


class _Enough(Exception):  # noqa: N818 - no error
    """All sites were reached: the rest of the forward is not needed."""


class OfModule(_Scaled):
    """Any network of images, whose parts have dotted names; `logits` is its output."""

    def __init__(self, module: nn.Module, transform: Transform | None) -> None:
        if transform is None:
            raise PrismaError(
                f"expected transform=, which says size, mean and std of the images of a {type(module).__name__}; "
                "found none: prisma.data.transform.Transform((height, width), mean, std)"
            )
        if module.training:
            raise PrismaError("expected a network in evaluation mode; found one in training: call its .eval()")
        weight = next(module.parameters(), torch.zeros(()))
        super().__init__(transform.range, weight.device, weight.dtype)
        self.module, self.shape = module, (len(transform.mean), *transform.size)
        self._parts = {name: part for name, part in module.named_modules() if name}
        self._checked: set[str] = set()
        self.depth: Sequence[str] = [name for name, _ in module.named_children()]
        self.per_pass = IMAGES

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
                self._run(torch.full((1, *self.shape), 0.5), missing, whole=True)
            self._checked |= set(missing)

    def read(self, pixels: Tensor, sites: Sequence[str]) -> Activations:
        wanted = [site for site in sites if site != PIXELS]
        found = self._run(pixels, wanted) if wanted else {}
        return Activations({**found, PIXELS: pixels}, {**{s: AXES[x.ndim] for s, x in found.items()}, PIXELS: MAP})

    def _run(self, pixels: Tensor, sites: Sequence[str], *, whole: bool = False) -> dict[str, Tensor]:
        """What the parts give. A run that is not whole ends at the last of them."""
        found: dict[str, Tensor] = {}
        inside = {site for site in sites if site in self._parts}

        def keep(site: str, output: Any) -> Any:
            """Read a part. The run goes on with a copy, since the next part may change what it is given in place."""
            if whole:
                _expect_site(site, output, again=site in found)
            found[site] = output
            if not whole and found.keys() >= set(sites):
                raise _Enough
            return output.clone() if isinstance(output, Tensor) else output

        hooks = [
            self._parts[site].register_forward_hook(lambda _, __, output, site=site: keep(site, output))
            for site in inside
        ]
        try:
            output = self.module(self.normalise(pixels))
        except _Enough:
            return found
        finally:
            for hook in hooks:
                hook.remove()
        if missed := inside - found.keys():
            raise PrismaError(f"expected a run to reach {', '.join(sorted(missed))}; found that it does not")
        if OUTPUT in sites and OUTPUT not in inside:
            _expect_site(OUTPUT, output, again=False)
            found[OUTPUT] = output
        return found


def _expect_site(site: str, output: Any, *, again: bool) -> None:
    """Raise PrismaError unless a part gives one tensor, once in a run."""
    what = f"{list(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
    if again or not isinstance(output, Tensor) or output.ndim not in AXES:
        found = "one that runs several times" if again else what
        raise PrismaError(
            f"expected {site} to give one tensor [batch, feature], [batch, token, feature] or [batch, channel, row, "
            f"column] once in a run; found {found}"
        )


def subject_of(model: "Loaded | nn.Module", transform: Transform | None = None) -> Subject:
    """The network, as something to look at.

    Args:
        model: what `prisma.load` returns, its model, or any network of images.
        transform: from pictures to inputs; of a loaded model its own, if it has one. A model of Prisma whose
            transform is not known is given pixels in [0, 1] as they are.

    Raises:
        PrismaError: a network of something else than images, in training, or without a transform.
    """
    if isinstance(model, Loaded):
        return OfViT(model.model, transform or model.transform)
    if not isinstance(model, nn.Module):
        raise PrismaError(f"expected a model or a network of torch; found {quoted(model)}")
    config = getattr(model, "config", None)
    return OfViT(model, transform) if isinstance(config, ViTConfig) else OfModule(model, transform)
