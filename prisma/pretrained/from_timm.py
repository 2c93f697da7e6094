"""Opening timm's models: `timm/NAME[.TAG]`, a folder that timm saved, or a live module."""

import copy
import math
from pathlib import Path
from typing import Any

from torch import nn

from prisma.data.transform import INTERPOLATIONS, Transform
from prisma.errors import PrismaError, nearest
from prisma.pretrained.calls import quiet, sentences
from prisma.pretrained.families import FAMILIES, family_of
from prisma.pretrained.opened import Opened

MODULES = {name.rpartition(".")[0] for family in FAMILIES if family.library == "timm" for name in family.classes}


def open_ref(name: str, revision: str | None = None, image_size: int | tuple[int, int] | None = None) -> Opened:
    """`vit_base_patch16_224.augreg_in21k`: weights from the Hub, or from its client's cache when offline.

    Raises:
        PrismaError: no such name or tag (the nearest are offered), or no weights to be had.
        UnsupportedModelError: of a class that Prisma does not read.
    """
    import timm

    if revision is not None:
        raise PrismaError(f"timm's weights are chosen by tag, timm/NAME.TAG; found revision={revision!r}")
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise PrismaError(
            f"timm has no model {architecture!r}; the nearest: {nearest(architecture, timm.list_models())}"
        )
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise PrismaError(f"timm has no weights {tag!r} of {architecture}; the nearest: {nearest(tag, tags)}")
    if not tags:
        raise PrismaError(
            f"timm publishes no weights of {architecture}; a module of it with weights can be loaded as it is"
        )
    if timm.model_entrypoint(architecture).__module__ not in MODULES:
        with quiet():
            family_of(timm.create_model(architecture))  # which says why not, before anything is downloaded
    with sentences(f"timm/{name}"):
        module = timm.create_model(name, pretrained=True, **_size(image_size))
    return _opened(module, _imagenet_names(module))


def open_folder(folder: Path, image_size: int | tuple[int, int] | None = None) -> Opened:
    """A folder written by timm's `save_for_hf`, with safetensors weights.

    Raises:
        PrismaError: no such weights, or they do not fit the architecture that config.json names.
    """
    import timm

    if not list(folder.glob("*.safetensors")):
        raise PrismaError(
            f"expected safetensors weights in {folder}, found none; save with safe_serialization=True: "
            "other formats are pickles, which can run code when they are opened"
        )
    with sentences(str(folder)):
        module = timm.create_model(f"local-dir:{folder}", pretrained=True, **_size(image_size))
    return _opened(module)


def of_module(module: nn.Module, image_size: int | tuple[int, int] | None = None) -> Opened:
    """A live module; with `image_size`, a copy of it that timm resized."""
    if image_size is not None or module.training:
        module = copy.deepcopy(module)  # the caller's stays as it is
    if image_size is not None:
        with sentences(f"{type(module).__name__} at image_size={image_size}"):
            module.set_input_size(image_size)  # type: ignore[operator]
    return _opened(module)


def _opened(module: Any, labels: tuple[str, ...] = ()) -> Opened:
    family_of(module)
    config = getattr(module, "pretrained_cfg", None) or {}
    known = config.get("label_names") if isinstance(config, dict) else None
    labels = tuple(known) if known else labels
    return Opened(module.eval(), _transform(module), labels if len(labels) == module.num_classes else ())


def _transform(module: Any) -> Transform | None:
    """What timm's evaluation transform does; None where it pads, keeps proportions for a size that is not square, or is
    for other images than the module's.
    """
    from timm.data import resolve_model_data_config

    data, size = resolve_model_data_config(module), tuple(module.patch_embed.img_size)
    scaled = tuple(math.floor(side / data["crop_pct"]) for side in size)
    look = {"mean": tuple(data["mean"]), "std": tuple(data["std"]), "interpolation": data["interpolation"]}
    if (
        data["interpolation"] not in INTERPOLATIONS
        or not len(look["mean"]) == len(look["std"]) == module.patch_embed.proj.in_channels
    ):
        return None
    if data["crop_mode"] == "squash":
        return Transform(size=size, stretch=scaled, **look)
    if data["crop_mode"] == "center" and size[0] == size[1]:
        return Transform(size=size, shortest=scaled[0], **look)
    return None


def _imagenet_names(module: Any) -> tuple[str, ...]:
    """Of weights that timm publishes: how many classes there are says which list of ImageNet's they are."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset(module)
    return tuple(ImageNetInfo(subset).label_descriptions()) if subset else ()


def _size(image_size: int | tuple[int, int] | None) -> dict[str, Any]:
    return {} if image_size is None else {"img_size": image_size}
