"""Every source class that Prisma reads."""

from torch import nn

from prisma.pretrained import hf_clip, hf_images, hf_text, hf_video, open_clip_towers, timm_eva, timm_vit
from prisma.pretrained.family import Family, full_name
from prisma.pretrained.rules import UnsupportedModelError
from prisma.pretrained.unread import properties
from prisma.pretrained.untouched import guarded

IMAGE_SOURCES = (timm_vit, timm_eva, open_clip_towers, hf_images, hf_clip, hf_video)
TEXT_SOURCES = (open_clip_towers, hf_text)

FAMILIES: tuple[Family, ...] = tuple(guarded(family) for source in IMAGE_SOURCES for family in source.FAMILIES)
TEXT_FAMILIES: tuple[Family, ...] = tuple(guarded(family) for source in TEXT_SOURCES for family in source.TEXT_FAMILIES)

_BY_CLASS = {name: family for family in FAMILIES for name in family.classes}

_TEXT_BY_CLASS = {name: family for family in TEXT_FAMILIES for name in family.classes}


def text_family_of(module: nn.Module) -> Family:
    """The family that reads a text tower, or the pair that holds its parts.

    Raises:
        UnsupportedModelError: no family reads it.
    """
    name = full_name(module)
    if name not in _TEXT_BY_CLASS:
        raise UnsupportedModelError(
            f"expected a text tower of a class that Prisma reads, whose mask is the same for every prompt; found {name}"
        )
    return _TEXT_BY_CLASS[name]


def family_of(module: nn.Module) -> Family:
    """The family that reads a module.

    Raises:
        UnsupportedModelError: no family reads this class. A subclass of a class that one reads may compute something
            else, so it is refused too.
    """
    name = full_name(module)
    if name in _BY_CLASS:
        return _BY_CLASS[name]
    for parent in type(module).__mro__[1:]:
        if f"{parent.__module__}.{parent.__qualname__}" in _BY_CLASS:
            raise UnsupportedModelError(
                f"expected a model of a class that Prisma reads, found {name}, "
                f"whose forward may differ from that of its parent {parent.__qualname__}"
            )
    has = " and ".join(properties(module))
    why = f", which has {has}" if has else ""
    raise UnsupportedModelError(
        f"expected a model of a class that Prisma reads (`prisma models` lists them), found {name}{why}"
    )
