"""Units: the test images to which one unit of a site answers most, where in them, and how this image compares.

A unit is one number of a site: a neuron of an MLP, a dimension of the residual stream or of a head's output, a class.
An image's number is the unit's largest activation over its patches.

Shapes: U unit, N image, K rank, P patch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prisma.analysis.top_images import top_images
from prisma.config import ViTConfig
from prisma.errors import PrismaError, quoted
from prisma.inventory import site_names
from prisma.runs import record
from prisma.sites import axes_of
from prisma.view.browser import View, numbers
from prisma_app.answers import thumbnails
from prisma_app.cache import Cache
from prisma_app.library import Scene
from prisma_app.pictures import Picture
from prisma_app.views.registers import registers_run
from prisma_app.views.shared import code_head, nested, program

LOOKED_AT, SHOWN = 256, 12  # most images that are read; images of a unit that are shown
MOST_WORK, MOST_BYTES = 4e11, 2**27  # multiply-adds of the weights, some seconds, and bytes of maps: else fewer images
KINDS: Mapping[str, str] = {
    "mlp.post": "neurons of the MLP",
    "resid_pre": "residual stream, before the layer",
    "resid_mid": "residual stream, after attention",
    "resid_post": "residual stream, after the layer",
    "attn.z": "output of a head",
    "attn.q": "queries of a head",
    "attn.k": "keys of a head",
    "attn.v": "values of a head",
    "attn_out": "output of attention",
    "mlp_out": "output of the MLP",
    "pooled": "what the classifier reads",
    "logits": "logits of the classes",
}
"""The sites whose units are offered, the default first: those in every layer, and the two after the last."""


@dataclass(frozen=True)
class Read:
    """All units of a site over the test images."""

    values: Tensor  # [unit, rank]: of all images, from the largest down
    images: Tensor  # [unit, rank]: which images these are
    mean: Tensor  # [unit]
    spread: Tensor  # [unit]
    maps: Tensor | None  # [unit, rank, row, column], of the first images


@dataclass(frozen=True)
class Chosen:
    """The unit of a scene, and what it is in the scene's image."""

    kind: str
    site: str
    head: int | None
    read: Read
    images: list[Picture]
    tokens: Tensor | None  # [token, unit] of the scene's image; None where the site has no tokens
    own: Tensor  # [unit]: the number of the scene's image
    at: int


KEPT: Cache[Read] = Cache(
    2**28, lambda read: sum(x.numel() * x.element_size() for x in vars(read).values() if x is not None)
)
"""By model, commit, training step, site and head; and the classes of a CLIP, which are its logits."""


def view(scene: Scene, part: int | None = None) -> View:
    """The unit's images and its number in all of them, in this image at every token, and how the other units are here.

    Part 0 is register neurons (`registers`).

    Raises:
        PrismaError: there is no such site, unit, image or part, or the model has diverged.
    """
    if part == 0:
        return registers_run(scene)
    if part is not None:
        raise PrismaError(f"expected part 0 (register neurons) of units; found {part}")
    chosen = _chosen(scene)
    read, at = chosen.read, chosen.at
    first = read.images[at, :SHOWN].tolist()
    common, shared = _common(chosen)
    facts: dict[str, Any] = {
        "kinds": [[kind, words, *_places(kind)] for kind, words in _offered(scene.config).items()],
        "site": chosen.site,
        "count": len(read.values),
        "read": len(chosen.images),
        "own": float(chosen.own[at]),
        "mean": float(read.mean[at]),
        "spread": float(read.spread[at]),
        "captions": [chosen.images[i].caption for i in first],
        "grid": None if read.maps is None else list(scene.config.grid[1:]),
        "state": scene.resolved(units=chosen.kind, number=at, layer=scene.state.layer, head=scene.state.head),
        "code": code(scene),
    }
    listed = {"own": chosen.own, "most": read.values[:, 0], "mean": read.mean, "common": common, "shared": shared}
    arrays = {
        "values": numbers(read.values[at]),
        "order": numbers(read.images[at]),
        "pictures": thumbnails(scene.subject, [chosen.images[i] for i in first]),
        "image": scene.subject.shown(scene.picture.x[None]),
        **{f"all.{name}": numbers(x) for name, x in listed.items()},
    }
    if read.maps is not None and chosen.tokens is not None:
        arrays |= {"tokens": numbers(chosen.tokens[:, at]), "maps": numbers(read.maps[at].flatten(1))}
    return View(facts, arrays)


def values(scene: Scene) -> dict[str, Any]:
    """The unit's number in every image that was read [rank], from the largest down, and which images these are."""
    chosen = _chosen(scene)
    read, at = chosen.read, chosen.at
    more: dict[str, Any] = {
        "units": chosen.kind, "number": at, "count": len(read.values), "site": chosen.site, "head": chosen.head,
        "images": read.images[at].tolist(), "captions": [chosen.images[i].caption for i in read.images[at].tolist()],
        "mean": float(read.mean[at]), "spread": float(read.spread[at]), "own": float(chosen.own[at]), "maps": None,
        "tokens": None,
    }  # fmt: skip
    if read.maps is not None and chosen.tokens is not None:
        more["maps"] = {"axes": ["rank", "row", "column"], "values": read.maps[at].tolist()}
        more["tokens"] = {"axes": ["token"], "values": chosen.tokens[:, at].tolist()}
    return nested(scene, ["rank"], read.values[at], **more)


def code(scene: Scene) -> str:
    """The Python that computes the unit's number in every image [rank], and in the scene's image at every token."""
    chosen = _chosen(scene)
    site, at, count = chosen.site, chosen.at, len(chosen.images)
    head = "" if chosen.head is None else f", head={chosen.head}"
    where = (
        f"0, {at}" if chosen.tokens is None else f"0, :, {at}" if chosen.head is None else f"0, :, {chosen.head}, {at}"
    )
    return program(
        f"{code_head(scene)}images = {scene.subject.code_of_examples(count)}\n"
        f"found = prisma.top_images(loaded.model, images, {site!r}, [{at}], k={count}{head}, pool='max')\n"
        "values, order = found.values[0], found.images[0]  # the largest first, and the images that they are of\n"
        f"_, acts = prisma.record(loaded.model, x, {site!r})\n"
        f"own = acts[{site!r}][{where}]  # in the image\n"
    )


def _offered(config: ViTConfig) -> dict[str, str]:
    """The kinds of units that a model has."""
    known = site_names(config)
    return {kind: words for kind, words in KINDS.items() if {kind, f"blocks.0.{kind}"} & set(known)}


def _places(kind: str) -> tuple[bool, bool]:
    """Whether a kind of units is in every layer, and in every head."""
    layered = kind not in ("pooled", "logits")
    return layered, layered and "head" in axes_of(f"blocks.0.{kind}")


def _chosen(scene: Scene) -> Chosen:
    config, asked = scene.config, scene.state.units
    offered = _offered(config)
    kind = next(iter(offered)) if asked is None else asked
    if kind not in offered:
        raise PrismaError(f"expected units among {', '.join(offered)}; found {quoted(kind, 40)}")
    layered, headed = _places(kind)
    head = scene.index("head", scene.state.head, config.n_heads) if headed else None
    site = f"blocks.{scene.index('layer', scene.state.layer, config.n_layers)}.{kind}" if layered else kind
    here = _here(scene, site, head)
    own = here[-config.n_patches :].amax(0) if layered else here[0]
    at = scene.index(f"unit of {site}", scene.state.number, len(own), int(own.nan_to_num().argmax()))
    images = scene.subject.test_images(_most(scene, len(own)))
    key = (scene.subject.name, scene.subject.rev, scene.step, site, head, scene.state.prompts)
    read = KEPT.get(key, lambda: _read(scene, site, head, images))
    return Chosen(kind, site, head, read, images, here if layered else None, own, at)


def _here(scene: Scene, site: str, head: int | None) -> Tensor:
    """[token, unit] of the scene's image; of a site without tokens [1, unit]."""
    with torch.no_grad():
        _, acts = record(scene.loaded.model, scene.picture.x[None], site, stop=True)
    x = acts[site] if head is None else acts[site][:, :, head]
    return x[0] if x.ndim == 3 else x


def _read(scene: Scene, site: str, head: int | None, images: list[Picture]) -> Read:
    x = torch.stack([image.x for image in images])
    found = top_images(scene.loaded.model, x, site, k=len(images), head=head, pool="max")
    maps = None if found.maps is None else found.maps[:, :SHOWN].clone()  # of the others nothing is shown
    return Read(found.values, found.images, found.mean, found.spread, maps)


def _most(scene: Scene, width: int) -> int:
    """How many images are read: as many as a visitor waits for, and as fit into memory."""
    config, model = scene.config, scene.loaded.model
    work = sum(p.numel() for p in model.parameters()) * config.n_tokens
    return max(1, min(LOOKED_AT, int(MOST_WORK / work), MOST_BYTES // (4 * width * config.n_patches)))


def _common(chosen: Chosen) -> tuple[Tensor, Tensor]:
    """[unit]: the class that most of a unit's shown images have (-1: they have none), and how many of them."""
    labels = torch.tensor([-1 if image.label is None else image.label for image in chosen.images])
    labels_UK = labels[chosen.read.images[:, :SHOWN]]
    if bool((labels < 0).any()):
        return torch.full_like(labels_UK[:, 0], -1), torch.zeros_like(labels_UK[:, 0])
    counts = torch.zeros(len(labels_UK), int(labels.max()) + 1, dtype=torch.long)
    most = counts.scatter_add(1, labels_UK, torch.ones_like(labels_UK)).max(1)
    return most.indices, most.values
