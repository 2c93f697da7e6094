"""Models that cannot be read: the property that stands in the way is named."""

import pytest
import timm

from prisma.pretrained.families import family_of
from prisma.pretrained.rules import UnsupportedModelError
from prisma.pretrained.unread import properties
from tests.pretrained.cases_timm import CASES

OTHERS = {
    "resnet18": "ResNet, which has .*batch norm and convolutions",
    "swin_tiny_patch4_window7_224": "SwinTransformer, which has attention within windows and stages that change",
    "convnext_atto": "ConvNeXt, which has .*convolutions",
}


@pytest.mark.parametrize(("name", "reason"), OTHERS.items())
def test_the_property_is_named(name: str, reason: str) -> None:
    with pytest.raises(UnsupportedModelError, match=reason):
        family_of(timm.create_model(name))


def test_a_vision_transformer_has_none() -> None:
    assert not properties(CASES["vit_base_patch16_224"]())
