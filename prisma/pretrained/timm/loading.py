"""Loading timm's models: `timm/NAME[.TAG]`, a folder that timm saved, or a live module."""

import copy
import math
from pathlib import Path
from typing import Any

from torch import nn

from prisma.data.transform import INTERPOLATIONS, Transform
from prisma.errors import PrismaError, nearest
from prisma.pretrained.families import FAMILIES, family_of
from prisma.pretrained.library_calls import library_errors, quiet
from prisma.pretrained.source import ImageSize, SourceModel, expect_safetensors

MODULES = {name.rpartition(".")[0] for family in FAMILIES if family.library == "timm" for name in family.classes}


def load_name(name: str, revision: str | None = None, image_size: ImageSize = None) -> SourceModel:
    """`vit_base_patch16_224.augreg_in21k`: weights from the Hub, or from the Hub's cache when offline.

    Raises:
        PrismaError: there is no such name or tag (the message lists the nearest), or the weights are not available.
        UnsupportedModelError: the model has a class that Prisma does not read.
    """
    import timm

    if revision is not None:
        raise PrismaError(f"timm's weights are chosen by tag, as timm/NAME.TAG; found revision={revision!r}")
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise PrismaError(
            f"timm has no model {architecture!r}; the nearest: {nearest(architecture, timm.list_models())}"
        )
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise PrismaError(f"timm has no weights {tag!r} for {architecture}; the nearest: {nearest(tag, tags)}")
    if not tags:
        raise PrismaError(
            f"timm publishes no weights for {architecture}; to use weights of your own, load a module that has them"
        )
    if timm.model_entrypoint(architecture).__module__ not in MODULES:
        with quiet():
            family_of(timm.create_model(architecture))  # raises with the reason, before anything is downloaded
    with library_errors(f"timm/{name}"):
        module = timm.create_model(name, pretrained=True, **_size(image_size))
    return _source(module, _imagenet_labels(module))


def load_folder(folder: Path, image_size: ImageSize = None) -> SourceModel:
    """A folder written by timm's `save_for_hf`, with safetensors weights.

    Raises:
        PrismaError: there are no such weights, or they do not fit the architecture that config.json names.
    """
    import timm

    expect_safetensors(any(folder.glob("*.safetensors")), folder, hint=" (save with safe_serialization=True)")
    with library_errors(str(folder)):
        module = timm.create_model(f"local-dir:{folder}", pretrained=True, **_size(image_size))
    return _source(module)


def load_module(module: nn.Module, image_size: ImageSize = None) -> SourceModel:
    """A live module; with `image_size`, a copy of it that timm resized."""
    if image_size is not None or module.training:
        module = copy.deepcopy(module)  # the caller's module stays unchanged
    if image_size is not None:
        with library_errors(f"{type(module).__name__} at image_size={image_size}"):
            module.set_input_size(image_size)  # type: ignore[operator]
    return _source(module)


def _source(module: Any, labels: tuple[str, ...] = ()) -> SourceModel:
    family_of(module)
    config = getattr(module, "pretrained_cfg", None) or {}
    known = config.get("label_names") if isinstance(config, dict) else None
    labels = tuple(known) if known else labels
    return SourceModel(module.eval(), _transform(module), labels if len(labels) == module.num_classes else ())


def _transform(module: Any) -> Transform | None:
    """timm's evaluation transform; None if it pads, keeps proportions for a size that is not square, or makes images of
    another kind than the module takes.
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


def _imagenet_labels(module: Any) -> tuple[str, ...]:
    """Class names of weights that timm publishes: the number of classes tells which of ImageNet's lists applies."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset(module)
    return tuple(ImageNetInfo(subset).label_descriptions()) if subset else ()


def _size(image_size: ImageSize) -> dict[str, Any]:
    return {} if image_size is None else {"img_size": image_size}
