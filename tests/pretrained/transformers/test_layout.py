"""Where a class has its parts: trunk, layers and head are found by their paths, in the module or in a part of it."""

import pytest
import torch
from torch import Tensor, nn

from prisma.config import ViTConfig
from prisma.errors import UnsupportedModelError
from prisma.pretrained.rules import Conversion
from prisma.pretrained.transformers.layout import Layout, family
from tests.variants import model_of

CONFIG: ViTConfig = model_of("base").config


class Encoder(nn.Module):
    def __init__(self, n_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(n_layers))


class Classifier(nn.Module):
    def __init__(self, n_layers: int = 2) -> None:
        super().__init__()
        self.encoder, self.head = Encoder(n_layers), nn.Linear(2, 3)


def test_parts_of_a_bare_encoder() -> None:
    module, layout = Encoder(2), Layout()
    assert layout.trunk_of(module) is module
    assert layout.layers_of(module) == list(module.layers)
    assert layout.head_of(module) is None


def test_parts_of_a_module_that_contains_an_encoder() -> None:
    module, layout = Classifier(), Layout("encoder", head="head")
    assert layout.trunk_of(module) is module.encoder
    assert layout.layers_of(module) == list(module.encoder.layers)
    assert layout.head_of(module) is module.head


def test_a_model_without_layers_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="at least one layer; found num_hidden_layers=0"):
        Layout("encoder").layers_of(Classifier(0))


def test_a_family_gives_each_class_its_layout() -> None:
    layouts = {"Encoder": Layout(), "Classifier": Layout("encoder", head="head")}

    def read(layout: Layout, module: nn.Module) -> Conversion:
        return Conversion(CONFIG, (), facts={"layout": layout, "module": module})

    def answer(layout: Layout, module: nn.Module, x: Tensor) -> Tensor:
        return x + len(layout.layers_of(module))

    found = family("Toy", "toy.modeling_toy", layouts, read, answer)
    assert found.classes == (
        "transformers.models.toy.modeling_toy.Encoder",
        "transformers.models.toy.modeling_toy.Classifier",
    )
    for module in (Encoder(2), Classifier(3)):
        facts = found.read(module).facts
        assert (facts["layout"], facts["module"]) == (layouts[type(module).__name__], module)
    module = Classifier(3)
    assert torch.equal(found.answer(module, torch.zeros(1)), torch.tensor([3.0]))
    assert found.blocks(module) == list(module.encoder.layers)
    assert torch.equal(found.order(module, torch.ones(2)), torch.ones(2))
