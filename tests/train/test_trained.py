"""Which weights are trained: all, the head, the last blocks."""

import pytest

from prisma.config import ViTConfig
from prisma.errors import PrismaError
from prisma.train.trained import expect_trained, train_only
from prisma.vit import ViT, build

CONFIG = ViTConfig(image_size=8, patch_size=4, channels=1, n_layers=3, d_model=16, n_heads=2, d_mlp=32, n_classes=7)


def trained(model: ViT) -> set[str]:
    return {name for name, x in model.named_parameters() if x.requires_grad}


def test_which_weights_are_trained() -> None:
    model = build(CONFIG)
    everything = {name for name, _ in model.named_parameters()}
    train_only(model, "head")
    assert trained(model) == {"readout.head.weight", "readout.head.bias"}
    train_only(model, "last:2")
    assert trained(model) == {name for name in everything if name.startswith(("blocks.1", "blocks.2", "readout"))}
    train_only(model, "all")
    assert trained(model) == everything
    with pytest.raises(PrismaError, match=r"last:N of at most 3 blocks; found last:4"):
        train_only(model, "last:4")


@pytest.mark.parametrize("text", ["", "none", "last", "last:", "last:0", "last:-1", "last:99999", "Head", "last: 1"])
def test_other_texts_are_a_sentence(text: str) -> None:
    with pytest.raises(
        PrismaError, match=r"expected trained to be all, head, or the last blocks such as last:2; found"
    ):
        expect_trained(text)
