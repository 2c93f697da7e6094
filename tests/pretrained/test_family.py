"""A class is known by its full name."""

from torch import nn

from prisma.pretrained.family import full_name
from prisma.vit import ViT


def test_a_full_name_is_where_the_class_was_defined() -> None:
    class Inner(nn.Module):
        pass

    assert full_name(nn.Linear(1, 1)) == "torch.nn.modules.linear.Linear"
    assert full_name(Inner()).endswith("test_a_full_name_is_where_the_class_was_defined.<locals>.Inner")
    assert full_name(object.__new__(ViT)) == "prisma.vit.ViT"
