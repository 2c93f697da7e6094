"""Which family reads a module: by its very class, and no subclass of it."""

from importlib import import_module

import pytest
from torch import nn

from prisma.errors import UnsupportedModelError
from prisma.pretrained.families import FAMILIES, TEXT_FAMILIES, family_of, text_family_of
from prisma.pretrained.family import full_name

CLASSES = {name: family for family in FAMILIES for name in family.classes}
TEXT_CLASSES = {name: family for family in TEXT_FAMILIES for name in family.classes}


def found(name: str) -> type[nn.Module]:
    module, _, kind = name.rpartition(".")
    return getattr(import_module(module), kind)


@pytest.mark.parametrize("name", [*CLASSES, *TEXT_CLASSES])
def test_every_class_exists_under_its_name(name: str) -> None:
    assert full_name(object.__new__(found(name))) == name


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_is_read_by_its_family_and_a_subclass_is_refused(name: str) -> None:
    kind = found(name)
    assert family_of(object.__new__(kind)) is CLASSES[name]
    mine = type("Mine", (kind,), {})
    with pytest.raises(
        UnsupportedModelError, match=rf"Mine, whose forward may differ from that of its parent {kind.__name__}"
    ):
        family_of(object.__new__(mine))


@pytest.mark.parametrize("name", TEXT_CLASSES)
def test_a_text_tower_is_read_by_its_family_and_a_subclass_is_refused(name: str) -> None:
    assert text_family_of(object.__new__(found(name))) is TEXT_CLASSES[name]
    with pytest.raises(UnsupportedModelError, match=r"found .*Mine"):
        text_family_of(object.__new__(type("Mine", (found(name),), {})))


def test_no_class_has_two_families_and_no_name_is_used_twice() -> None:
    for families in (FAMILIES, TEXT_FAMILIES):
        names = [name for family in families for name in family.classes]
        assert len(names) == len(set(names))
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    assert {family.library for family in (*FAMILIES, *TEXT_FAMILIES)} <= {"timm", "transformers", "open_clip"}


def test_a_class_that_nobody_reads_is_named() -> None:
    with pytest.raises(
        UnsupportedModelError, match=r"expected a model of a class that Prisma reads .* found torch.*Linear"
    ):
        family_of(nn.Linear(1, 1))
