"""The mice that ViT-Prisma published in 2023, from their training checkpoints.

Their architecture: a convolution without bias, a class token, learned positions for all tokens, blocks of attention
(one matrix for q, k and v, without bias) and MLP without any norm, and a linear head on the class token.

Source: https://github.com/soniajoseph/ViT-Prisma, the code of December 2023.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from prisma.config import ViTConfig
from prisma.errors import PrismaError
from prisma.pretrained.rules import Conversion, both, convert, rules
from prisma.pretrained.tensors import class_token_with_position, flat, patch_positions
from prisma.vit import ViT

RULES = rules(
    ("embed.patch.weight", "patch_embedding.proj.weight", flat),
    ("embed.prefix", "cls_token position_embedding", class_token_with_position),
    ("embed.prefix", "position_embedding", lambda _, positions: positions[0, :0]),
    ("embed.positions", "position_embedding", patch_positions),
    ("blocks.{l}.attn.qkv.weight", "blocks.{l}.attention.qkv.weight"),
    *both("blocks.{l}.attn.out", "blocks.{l}.attention.proj"),
    *both("blocks.{l}.mlp.pre", "blocks.{l}.mlp.fc1"),
    *both("blocks.{l}.mlp.out", "blocks.{l}.mlp.fc2"),
    *both("readout.head", "head"),
)
PARALLEL = "module."  # the prefix that torch.nn.DataParallel gives to every name


def read_mouse(path: Path, like: ViTConfig) -> ViT:
    """The model of a checkpoint of 2023, in evaluation mode and frozen.

    Args:
        path: a `.pth` file: the weights, or a dictionary with them under `model_state_dict`.
        like: has what the shapes do not tell: the number of heads, the activation, the height and width of an image.

    Raises:
        PrismaError: there is no such file, it contains more than tensors, or tensors do not fit; all are listed.
    """
    tensors = _read(path)
    model = convert(Conversion(_config(tensors, like, path), RULES), tensors, str(path))
    assert isinstance(model, ViT)
    return model


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise PrismaError(f"expected a checkpoint at {path}; found no such file")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of any kind: the bytes of a file decide what the parser does
        if code := re.search(r"GLOBAL (\S+)", str(error)):
            raise PrismaError(
                f"expected nothing but tensors in {path}; found the Python object {code[1]}, "
                "and restoring it would run code from the file"
            ) from None
        raise PrismaError(f"expected a file written by torch.save at {path}; found something else") from None
    weights = found.get("model_state_dict", found) if isinstance(found, dict) else None
    numbers = isinstance(weights, Mapping) and [
        isinstance(x, Tensor) and x.is_floating_point() for x in weights.values()
    ]
    if not isinstance(weights, Mapping) or not numbers or not all(numbers):
        raise PrismaError(f"expected the tensors of a model in {path}; found a {type(found).__name__} without them")
    return {str(name).removeprefix(PARALLEL): x for name, x in weights.items()}


def _config(tensors: Mapping[str, Tensor], like: ViTConfig, path: Path) -> ViTConfig:
    """What the shapes determine, and the rest from `like`."""
    dimensions = {"patch_embedding.proj.weight": 4, "position_embedding": 3, "head.weight": 2}
    wrong = [f"{name} is missing" for name in dimensions if name not in tensors]
    wrong += [
        f"{name} is {list(tensors[name].shape)}"
        for name, n in dimensions.items()
        if name in tensors and tensors[name].ndim != n
    ]
    if wrong:
        raise PrismaError(f"expected a mouse of ViT-Prisma's code of 2023 in {path}; found that {'; '.join(wrong)}")
    d_model, channels, *patch = tensors["patch_embedding.proj.weight"].shape
    layers = {int(found[1]) for name in tensors if (found := re.match(r"blocks\.(\d+)\.", name))}
    mlp, has_class = tensors.get("blocks.0.mlp.fc1.weight"), "cls_token" in tensors
    return ViTConfig(
        image_size=like.image_size,
        patch_size=(patch[0], patch[1]),
        channels=channels,
        n_layers=len(layers),
        d_model=d_model,
        n_heads=like.n_heads,
        d_mlp=0 if mlp is None or not mlp.ndim else len(mlp),
        n_classes=len(tensors["head.weight"]),
        activation=like.activation,
        norm="none",
        qkv_bias=False,
        class_token=has_class,
        pool="class" if has_class else "mean",
    )
