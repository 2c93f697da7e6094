"""Any network of images with its preprocessing and class names: what feature visualisation needs of one.

`prisma.load` converts vision transformers, so that all of their sites are known. A CNN, or any other network, stays as
its library built it, and its parts are known by their dotted names.
"""

import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prisma.data.transform import INTERPOLATIONS, Transform
from prisma.errors import PrismaError, nearest, quoted
from prisma.filesystem import given
from prisma.pretrained.folders import library_of
from prisma.pretrained.library_calls import library_errors, quiet
from prisma.pretrained.loading import is_folder
from prisma.pretrained.source import SourceModel, class_names
from prisma.pretrained.timm import loading as timm
from prisma.pretrained.transformers import classifiers as transformers

TORCHVISION, TIMM, HUGGING_FACE = "torchvision/", "timm/", "hf/"
LIBRARIES: Mapping[str, Any] = {"timm": timm, "transformers": transformers}
"""Library -> the module that loads its networks: `load_other`."""
NETWORKS = (
    "torchvision/NAME[.WEIGHTS], timm/NAME, hf/ORG/NAME, a folder that timm or transformers saved, or FILE.py:FUNCTION"
)


@dataclass(frozen=True)
class Network:
    """A network of images, how pictures become its inputs, and what its classes are called.

    Attributes:
        model: any `nn.Module` that takes [batch, channel, height, width], in evaluation mode, and gives a tensor or, as
            transformers, something with `logits`.
        transform: a picture -> its input.
        labels: class names, in the order of its outputs; empty if they are unknown.
    """

    model: nn.Module
    transform: Transform
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.model, nn.Module) or not isinstance(self.transform, Transform):
            raise PrismaError(
                "expected a module of torch and a prisma.data.transform.Transform; found "
                f"{quoted(type(self.model).__name__)} and {quoted(self.transform)}"
            )
        if self.model.training:
            raise PrismaError("expected a network in evaluation mode; found one in training: call its .eval()")

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(channel, height, width) of its images."""
        return (len(self.transform.mean), *self.transform.size)


def load_network(ref: str) -> Network:
    """A network that its library builds, and that stays what it is: `prisma.load` has the models that are converted.

    | `ref` | what it is |
    |---|---|
    | `torchvision/NAME[.WEIGHTS]` | a classifier of torchvision, such as `torchvision/resnet50.IMAGENET1K_V2` |
    | `timm/NAME[.TAG]`, a folder that timm saved | a classifier of timm |
    | `hf/ORG/NAME`, a folder that transformers saved | an image classifier of transformers |
    | `FILE.py:FUNCTION` | a function in a file of yours, without arguments, that returns a `Network` |

    Weights are read as tensors alone; only a file of yours is run.

    Raises:
        PrismaError: there is no such network, or its preprocessing is not known.
    """
    if ref.startswith(TORCHVISION):
        return _of_torchvision(ref.removeprefix(TORCHVISION))
    path, _, function = ref.rpartition(":")
    if path.endswith(".py"):
        return _of_file(given(path), function)
    library = _library_of(ref)
    if library is None:
        raise PrismaError(f"expected {NETWORKS}; found {quoted(ref)}")
    name = given(ref) if is_folder(ref) else ref.removeprefix(TIMM).removeprefix(HUGGING_FACE)
    source: SourceModel = LIBRARIES[library].load_other(name)
    if source.transform is None:
        raise PrismaError(f"expected a network whose preprocessing can be reproduced; found another, {quoted(ref)}")
    return Network(source.module.requires_grad_(False), source.transform, source.labels)


def _of_torchvision(name: str) -> Network:
    import torchvision.models as models

    architecture, _, chosen = name.partition(".")
    known = models.list_models(module=models)
    if architecture not in known:
        raise PrismaError(
            f"torchvision has no network {quoted(architecture)}; the nearest: {nearest(architecture, known)}"
        )
    weights: Any = models.get_model_weights(architecture)
    names = [entry.name for entry in weights]
    if chosen and chosen not in names:
        raise PrismaError(f"torchvision has no weights {quoted(chosen)} for {architecture}; it has {', '.join(names)}")
    entry = weights[chosen] if chosen else weights.DEFAULT
    transform, labels = _transform(entry.transforms(), name), entry.meta.get("categories", ())
    with library_errors(f"torchvision/{name}"), quiet():
        module = models.get_model(architecture, weights=None).eval().requires_grad_(False)
        tensors = torch.hub.load_state_dict_from_url(entry.url, map_location="cpu", check_hash=True, weights_only=True)
        module.load_state_dict(tensors)
    return Network(module, transform, class_names(labels, len(labels)))


def _transform(preset: Any, name: str) -> Transform:
    """torchvision's preset for a classifier. Raises PrismaError: it is another one."""
    try:
        (shortest,), (side,) = preset.resize_size, preset.crop_size
        interpolation = preset.interpolation.value
        mean, std = tuple(preset.mean), tuple(preset.std)
    except (AttributeError, TypeError, ValueError):
        interpolation = None
    if interpolation not in INTERPOLATIONS:
        raise PrismaError(f"expected a classifier of images of torchvision; found {quoted(name)}")
    return Transform((side, side), mean, std, shortest=shortest, interpolation=interpolation)


def _of_file(path: Path, function: str) -> Network:
    """What a function in a file of the user's returns."""
    if not path.is_file():
        raise PrismaError(f"expected a Python file at {path}; found none")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None  # its name ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))  # its own imports
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    make = getattr(module, function, None)
    if not callable(make):
        found = nearest(function, [name for name, value in vars(module).items() if callable(value)])
        raise PrismaError(f"no function of {path} is called {quoted(function)}; the nearest are {found}")
    made = make()
    if not isinstance(made, Network):
        raise PrismaError(f"expected {function} to return a prisma.features.Network; found {quoted(made)}")
    return made


def is_network(ref: str) -> bool:
    """Whether a reference can only be that of a network, and of no model that `prisma.load` reads."""
    return ref.startswith(TORCHVISION) or ref.rpartition(":")[0].endswith(".py")


def may_be_network(ref: str) -> bool:
    """Whether `load_network` may read what a reference names, where `prisma.load` does not."""
    return is_network(ref) or _library_of(ref) is not None


def _library_of(ref: str) -> str | None:
    """Whose classifier a reference may name; None if it is that of no library here."""
    if is_folder(ref):
        return found if (found := library_of(given(ref))) in LIBRARIES else None
    return "timm" if ref.startswith(TIMM) else "transformers" if ref.startswith(HUGGING_FACE) else None
