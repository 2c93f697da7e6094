"""transformers' image classes: every variation of their configurations, every parameter, and other image sizes."""

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from prisma.pretrained.families import family_of
from prisma.pretrained.parity import compare, randomise
from prisma.pretrained.parts import sides
from prisma.pretrained.transformers.images import FAMILIES
from tests.pretrained.proofs import expect_parity, idle_parameters
from tests.pretrained.transformers.cases_images import CASES, build

IDLE = ("mask_token", "pooler.dense.weight", "pooler.dense.bias")  # by the reader's own declaration


def images_for(module: Any) -> Tensor:
    shape = (2, module.config.num_channels, *sides(module.config.image_size))
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def test_every_class_is_here() -> None:
    read = {name for family in FAMILIES for name in family.classes}
    built = {f"{type(module).__module__}.{type(module).__qualname__}" for module in (make() for make in CASES.values())}
    assert built == read


@pytest.mark.parametrize("name", CASES)
def test_equals_transformers(name: str) -> None:
    module = CASES[name]()
    expect_parity(module, images_for(module))


@pytest.mark.parametrize("name", CASES)
def test_every_parameter_has_its_part(name: str) -> None:
    module = CASES[name]()
    turned = hasattr(module, "rope_embeddings")
    unseen = {
        name
        for name, parameter in module.named_parameters()
        if name.endswith(IDLE)
        or name.startswith("decoder.")
        or (name.endswith("k_proj.bias") and not turned)  # softmax cannot see what is added to every score of a query
        or not parameter.numel()
    }
    assert idle_parameters(module, images_for(module)) == unseen


ELSEWHERE = {
    "vit_classes": (20, 8), "deit_teacher": (8, 20), "dinov2": (20, 8), "dinov2_classes": (16, 16),
    "dinov2_registers": (8, 20), "dinov3": (20, 8), "mae": (20, 8), "mae_pretraining": (16, 16), "msn_classes": (20, 8),
    "ijepa_classes": (20, 8), "beit_everything": (20, 8), "beit_no_pooler": (16, 16), "data2vec_class_token": (8, 20),
    "data2vec_classes": (20, 8), "aimv2_native": (20, 8),
}  # fmt: skip


@pytest.mark.parametrize(("name", "size"), ELSEWHERE.items())
def test_other_image_sizes_are_resampled_as_the_source_does(name: str, size: tuple[int, int]) -> None:
    module: Any = CASES[name]().double()
    randomise(module)
    module.config.image_size = size
    assert compare(family_of(module), module, images_for(module).double()).largest <= 1e-9


@pytest.mark.parametrize("name", ["vit_oblong", "dinov2", "beit_everything", "aimv2"])
def test_other_image_sizes_that_the_source_cannot_do_are_refused(name: str) -> None:
    module: Any = CASES[name]()
    if name == "dinov2":  # made for an oblong, which its own forward fails on
        module = build("Dinov2Model", "Dinov2", image_size=(8, 12))
    elif name == "beit_everything":
        module = build("BeitModel", "Beit", image_size=(8, 12), use_absolute_position_embeddings=True)
    else:
        module.config.image_size = (20, 8)
    with pytest.raises(
        Exception, match=r"image_size=\(\d+, \d+\) is not supported: the source (does not resample|resamples)"
    ):
        family_of(module).read(module)


def _uneven(module: nn.Module) -> None:
    module.layernorm.eps = 0.5  # type: ignore[union-attr, assignment]


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "activation": ("ViT", {"hidden_act": "mish"}, "the activation MishActivation is not supported"),
    "no layers": ("ViT", {"num_hidden_layers": 0}, "at least one layer; found num_hidden_layers=0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_exact_is_refused(name: str) -> None:
    config, changes, reason = REFUSED[name]
    module = build(f"{config}Model", config, **changes)
    with pytest.raises(Exception, match=reason):
        family_of(module).read(module)


def test_norms_that_differ_are_refused() -> None:
    module = CASES["vit"]()
    _uneven(module)
    with pytest.raises(Exception, match="expected norms of one kind"):
        family_of(module).read(module)


def test_a_teacher_without_classes_is_refused() -> None:
    module = build("DeiTForImageClassificationWithTeacher", "DeiT", num_labels=0)
    with pytest.raises(Exception, match="two heads without classes are not supported"):
        family_of(module).read(module)


def test_aimv2_as_it_is() -> None:
    """Its norm makes a detour by float32, which is all that parts it from us in float64."""
    module: Any = build("Aimv2VisionModel", "Aimv2Vision")
    randomise(module)
    family, images = family_of(module), images_for(module)
    assert compare(family, module, images).largest <= 1e-5
    assert 1e-9 < compare(family, module.double(), images.double()).largest <= 1e-6


@pytest.mark.parametrize("other", ["ViTForMaskedImageModeling", "Dinov2Backbone", "ResNetModel"])
def test_other_classes_are_refused(other: str) -> None:
    with torch.device("meta"):
        kind = getattr(transformers, other)
        module = kind(kind.config_class())
    with pytest.raises(Exception, match=f"found transformers.*{other}"):
        family_of(module)
