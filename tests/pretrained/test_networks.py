"""Networks that are not converted: of torchvision, of timm, and of a file of one's own."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from timm.models import save_for_hf
from torch import nn
from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

from prisma.data.transform import Transform
from prisma.errors import PrismaError
from prisma.pretrained.networks import Network, load_network

WEIGHTS = SqueezeNet1_1_Weights.IMAGENET1K_V1
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (250, 300, 3), dtype=np.uint8))
MINE = """
from torch import nn
from prisma.data.transform import Transform
from prisma.features import Network
import beside
def net(): return Network(nn.Sequential(nn.Conv2d(beside.CHANNELS, 2, 3)).eval(), Transform((8, 8), (0,), (1,)), ("a",))
def number(): return 3
"""


def test_a_network_of_torchvision_has_its_weights_transform_and_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    theirs = squeezenet1_1().eval()
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(theirs.state_dict(), tmp_path / "hub" / "checkpoints" / Path(WEIGHTS.url).name)
    for ref in ("torchvision/squeezenet1_1", "torchvision/squeezenet1_1.IMAGENET1K_V1"):
        found = load_network(ref)
    x = WEIGHTS.transforms()(PICTURE)
    assert (found.transform(PICTURE) - x).abs().max() < 0.02, "a rounding of bytes"
    assert torch.equal(found.model(x[None]), theirs(x[None])) and found.labels[985] == "daisy"
    assert not found.model.training and not any(x.requires_grad for x in found.model.parameters())
    (tmp_path / "hub" / "checkpoints" / Path(WEIGHTS.url).name).write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(PrismaError, match=r"torchvision/squeezenet1_1 could not be loaded"):
        load_network("torchvision/squeezenet1_1")


def test_a_network_of_timm_from_its_folder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = timm.create_model("tf_efficientnet_lite0", num_classes=3).eval()
    save_for_hf(module, str(tmp_path), safe_serialization=True, model_config={"label_names": ["x", "y", "z"]})
    found = load_network(str(tmp_path))
    x = create_transform(**resolve_model_data_config(module))(PICTURE)  # type: ignore[arg-type]
    assert (found.transform(PICTURE) - x).abs().max() < 0.02
    assert torch.equal(found.model(x[None]), module(x[None])) and found.labels == ("x", "y", "z")


def test_a_network_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "beside.py").write_text("CHANNELS = 1")
    found = load_network(f"{tmp_path}/mine.py:net")
    assert isinstance(found.model[0], nn.Conv2d) and found.labels == ("a",)  # type: ignore[index]
    for ref, message in {
        f"{tmp_path}/mine.py:nets": "no function of .*mine.py is called 'nets'; the nearest are net",
        f"{tmp_path}/mine.py:number": "expected number to return a prisma.features.Network; found 3",
        f"{tmp_path}/other.py:net": "expected a Python file at .*other.py; found none",
    }.items():
        with pytest.raises(PrismaError, match=message):
            load_network(ref)


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("torchvision/resnet19", "torchvision has no network 'resnet19'; the nearest: resnet18"),
        ("torchvision/resnet18.V9", "no weights 'V9' for resnet18; it has IMAGENET1K_V1"),
        ("torchvision/fcn_resnet50", "no network 'fcn_resnet50'"),
        ("timm/resnet19", "timm has no model 'resnet19'"),
        (
            "open_clip/RN50",
            r"expected torchvision/NAME\[.WEIGHTS\], timm/NAME, hf/ORG/NAME, .* found 'open_clip/RN50'",
        ),
    ],
)
def test_what_there_is_not_is_said(ref: str, message: str) -> None:
    with pytest.raises(PrismaError, match=message):
        load_network(ref)


def test_a_network_is_a_module_for_inference_with_a_transform() -> None:
    transform = Transform((8, 8), (0,), (1,))
    with pytest.raises(PrismaError, match="expected a network in evaluation mode; found one in training"):
        Network(nn.Linear(2, 2), transform)
    with pytest.raises(PrismaError, match=r"expected a module of torch and a .*Transform; found 'Linear' and None"):
        Network(nn.Linear(2, 2), None)  # type: ignore[arg-type]
