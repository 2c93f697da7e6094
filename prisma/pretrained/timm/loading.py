"""Loading timm's models: `timm/NAME[.TAG]`, a folder that timm saved, or a live module."""

import math
from pathlib import Path
from typing import Any

from torch import nn

from prisma.data.transform import INTERPOLATIONS, Transform
from prisma.errors import PrismaError, nearest, quoted
from prisma.files import read_json
from prisma.pretrained.families import FAMILIES, family_of
from prisma.pretrained.library_calls import library_errors, quiet
from prisma.pretrained.sizes import expect_image_size, expect_sizes, without_values
from prisma.pretrained.source import ImageSize, SourceModel, class_names
from prisma.pretrained.twin import twin
from prisma.pretrained.weights import NO_PICKLES, Weights, weights_in, weights_of

WEIGHTS = ("model.safetensors",)
FOREIGN_ARGUMENTS = ("pretrained", "features_only", "checkpoint", "cache_dir", "use_naflex", "pruned")
"""How arguments in a config.json begin that choose weights or another class, and do not describe an architecture."""
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
    architecture = _expect_published(name)
    if timm.model_entrypoint(architecture).__module__ not in MODULES:
        with quiet():
            family_of(timm.create_model(architecture))  # raises with the reason, before anything is downloaded
    module = _created(name, _published_weights(name), f"timm/{name}", image_size)
    return _source(module, _imagenet_labels(module))


def _expect_published(name: str) -> str:
    """The architecture of a name. Raises PrismaError: timm has no such name or tag, or publishes no weights for it."""
    import timm

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
    return architecture


def load_folder(folder: Path, image_size: ImageSize = None) -> SourceModel:
    """A folder written by timm's `save_for_hf`, with safetensors weights.

    Raises:
        PrismaError: there are no such weights or several, or they do not fit the architecture that config.json names.
    """
    weights = weights_in(folder, WEIGHTS)
    _expect_architecture(folder / "config.json")
    return _source(_created(f"local-dir:{folder}", weights, str(folder), image_size))


def load_other(ref: str | Path) -> SourceModel:
    """A classifier of any class, by its name in timm or from a folder, which stays timm's own module.

    Raises:
        PrismaError: as `load_name` and `load_folder` do.
    """
    if isinstance(ref, Path):
        weights, name, what = weights_in(ref, WEIGHTS), f"local-dir:{ref}", str(ref)
        _expect_architecture(ref / "config.json")
    else:
        _expect_published(ref)
        weights, name, what = _published_weights(ref), ref, f"timm/{ref}"
    module: Any = _created(name, weights, what, None, converted=False).eval()
    return SourceModel(
        module, _transform(module), _labels(module, () if isinstance(ref, Path) else _imagenet_labels(module))
    )


def _created(name: str, weights: Weights, what: str, image_size: ImageSize, *, converted: bool = True) -> nn.Module:
    """The module that timm builds, with the weights that Prisma chose: timm looks for no file."""
    import timm

    size = {} if image_size is None else {"img_size": image_size}
    outline = without_values(lambda: timm.create_model(name, **size), what)
    if converted:
        family_of(outline).read(outline)  # raises with the reason, before anything is allocated
    with weights.as_file() as file, library_errors(what):
        chosen = {"source": "", "file": str(file), "custom_load": False}
        module: Any = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=chosen, **size)
    saved = (getattr(module, "pretrained_cfg", None) or {}).get("num_classes")
    if saved != module.num_classes:  # timm leaves such a head random
        raise PrismaError(f"expected weights of {module.num_classes} classes in {what}; found num_classes={saved}")
    return module


def _published_weights(name: str) -> Weights:
    """The safetensors of weights that timm publishes, from the Hub or its cache."""
    from timm.models import get_pretrained_cfg

    known: Any = get_pretrained_cfg(name)
    if not known.hf_hub_id:
        where = known.url or known.file or "another place"
        raise PrismaError(f"expected safetensors of timm/{name} on the Hub; found {where} only. {NO_PICKLES}")
    repo, _, revision = str(known.hf_hub_id).partition("@")
    repo = f"{repo}{name}" if repo.endswith("/") else repo
    stem = Path(known.hf_hub_filename or WEIGHTS[0]).stem
    own = stem.replace("open_clip_pytorch_model", "open_clip_model")
    standard = WEIGHTS if stem == "pytorch_model" else dict.fromkeys((f"{own}.safetensors", f"{stem}.safetensors"))
    return weights_of(repo, tuple(standard), revision or None)


def _expect_architecture(path: Path) -> None:
    """Raise PrismaError if a config.json states sizes out of bounds, or has arguments that do more than to describe an
    architecture.
    """
    try:
        values = read_json(path)
    except PrismaError:
        return  # timm says what is wrong
    arguments = values.get("model_args") or {}
    if not isinstance(arguments, dict):
        raise PrismaError(f"expected model_args in {path} as named arguments; found {quoted(arguments)}")
    if foreign := [name for name in arguments if name.startswith(FOREIGN_ARGUMENTS)]:
        raise PrismaError(f"expected model_args that describe an architecture in {path}; found {', '.join(foreign)}")
    expect_sizes(values, path)


def load_module(module: nn.Module, image_size: ImageSize = None) -> SourceModel:
    """A live module, of which a twin is read; with `image_size`, timm resizes the twin."""
    module = twin(module)
    if image_size is not None:
        expect_image_size(family_of(module).read(module).config, image_size)
        with library_errors(f"{type(module).__name__} at image_size={image_size}"):
            module.set_input_size(image_size)  # type: ignore[operator]
    return _source(module)


def _source(module: Any, labels: tuple[str, ...] = ()) -> SourceModel:
    family_of(module)
    return SourceModel(module.eval(), _transform(module), _labels(module, labels))


def _labels(module: Any, labels: tuple[str, ...]) -> tuple[str, ...]:
    """The names of a module's classes: those that its file states, or these."""
    config = getattr(module, "pretrained_cfg", None) or {}
    known = config.get("label_names") if isinstance(config, dict) else None
    return class_names(known if isinstance(known, list | tuple) else labels, module.num_classes)


def _transform(module: Any) -> Transform | None:
    """timm's evaluation transform; None if it pads, keeps proportions for a size that is not square, or makes images of
    another kind than the module takes.
    """
    from timm.data import resolve_model_data_config

    data: dict[str, Any] = resolve_model_data_config(module)
    patches: Any = getattr(module, "patch_embed", None)
    channels, *sides = data["input_size"]
    if hasattr(patches, "img_size"):  # which may be another than that of the weights
        channels, sides = patches.proj.in_channels, patches.img_size
    size = tuple(sides)
    look = {"mean": tuple(data["mean"]), "std": tuple(data["std"]), "interpolation": data["interpolation"]}
    if (
        data["interpolation"] not in INTERPOLATIONS
        or not len(look["mean"]) == len(look["std"]) == channels
        or not isinstance(data["crop_pct"], int | float)
        or not 0 < data["crop_pct"] <= 1  # more would pad
    ):
        return None
    scaled = tuple(math.floor(side / data["crop_pct"]) for side in size)
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
