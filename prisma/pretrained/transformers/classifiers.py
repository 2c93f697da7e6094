"""Image classifiers of transformers that stay its own modules, such as ResNet, ConvNeXt and MobileNet."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from prisma.data.transform import Transform
from prisma.errors import PrismaError
from prisma.pretrained.library_calls import library_errors
from prisma.pretrained.source import SourceModel
from prisma.pretrained.transformers.loading import (
    WEIGHTS,
    class_in,
    config_folder,
    fetch_processor,
    labels_of,
    outline,
    processor_of,
    with_weights,
)
from prisma.pretrained.transformers.transform import transform_of
from prisma.pretrained.weights import weights_in, weights_of

PICTURE = (320, 260)  # (height, width) of the picture on which a transform is compared with the processor
LEVELS = 3.0  # of 256, by which two resizings may differ on it


def load_other(ref: str | Path) -> SourceModel:
    """An image classifier of any class, by its name on the Hub or from a folder that `save_pretrained` wrote.

    Raises:
        PrismaError: no such repository or folder, no image classifier, weights that do not fit, or preprocessing that
            no `Transform` does.
    """
    folder = ref if isinstance(ref, Path) else config_folder(ref)
    name = str(ref) if isinstance(ref, Path) else f"hf/{ref}"
    kind = class_in(folder, name)
    _expect_classifier(kind, name)
    outline(kind, folder)  # whose sizes are within bounds
    if not isinstance(ref, Path):
        fetch_processor(ref, folder.name)
    weights = weights_in(ref, WEIGHTS) if isinstance(ref, Path) else weights_of(ref, WEIGHTS, folder.name)
    module: Any = with_weights(kind, folder, weights, name, lambda _: lambda tensor: False).eval()
    channels = int(getattr(module.config, "num_channels", 3))
    return SourceModel(module, _transform(folder, channels), labels_of(module, module.config.num_labels))


def _expect_classifier(kind: Any, name: str) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as KNOWN

    if not any(kind.__name__ in ([names] if isinstance(names, str) else names) for names in KNOWN.values()):
        raise PrismaError(f"expected an image classifier of transformers in {name}; found a {kind.__name__}")


def _transform(folder: Path, channels: int) -> Transform | None:
    """The transform of a folder's image processor, if it gives nearly what that one does for a picture, else None."""
    processor = processor_of(folder)
    found = None if processor is None else transform_of(processor, channels)
    if found is None:
        return None
    levels = np.random.default_rng(0).integers(0, 256, (*[side // 20 for side in PICTURE], 3), dtype=np.uint8)
    picture = levels.repeat(20, 0).repeat(20, 1)[..., :channels]
    with library_errors(f"the image processor of {folder}"):
        theirs = processor(picture, return_tensors="pt")["pixel_values"][0]
    ours = found(picture)
    fits = theirs.shape == ours.shape and _levels(theirs - ours, found) <= LEVELS
    return found if fits else None


def _levels(difference: torch.Tensor, transform: Transform) -> float:
    """The mean difference of inputs, in levels of 256."""
    return float((difference.abs() * torch.tensor(transform.std).view(-1, 1, 1)).mean() * 255)
