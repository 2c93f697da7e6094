"""The causal partner of a figure: columns by name, and analyses that have no layers."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

import prisma
from prisma import PrismaError
from prisma.analysis.class_space.causes import effects_by_layer
from prisma.analysis.result import Effect
from tests.variants import images_of, model_of


@dataclass(frozen=True, kw_only=True, eq=False)
class Flat(Effect):
    """An effect without layers."""

    @property
    def per_image(self) -> Tensor:
        return torch.ones(3)


def test_columns_have_the_names_of_the_analysis() -> None:
    model, labels = model_of("base"), torch.tensor([0, 1, 2])
    images = images_of(model, 3)
    found = prisma.ablation(model, images, "attn.z", metric=prisma.Logit(labels), axis="head")
    columns = effects_by_layer(found)
    assert list(columns) == ["head 0", "head 1", "head 2"] and effects_by_layer(None) == {}
    for i, column in enumerate(columns.values()):
        torch.testing.assert_close(column, found.per_image[..., i])


def test_an_analysis_without_layers_is_no_partner() -> None:
    with pytest.raises(PrismaError, match=r"expected an analysis with effects \[layer, ...\]"):
        effects_by_layer(Flat(metadata={}))
