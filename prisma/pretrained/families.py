"""Every source class that Prisma reads."""

from torch import nn

from prisma.errors import UnsupportedModelError
from prisma.pretrained.checks import checked, unsupported_properties
from prisma.pretrained.family import Family, full_name
from prisma.pretrained.open_clip import towers
from prisma.pretrained.timm import eva, vit
from prisma.pretrained.transformers import clip, images, text, video

FAMILIES: tuple[Family, ...] = tuple(
    checked(family) for reader in (vit, eva, towers, images, clip, video) for family in reader.FAMILIES
)
"""Families of models of images and video."""
TEXT_FAMILIES: tuple[Family, ...] = tuple(
    checked(family) for reader in (towers, text) for family in reader.TEXT_FAMILIES
)
"""Families of text towers. Their inputs are token ids [batch, context]."""

_BY_CLASS = {name: family for family in FAMILIES for name in family.classes}
_TEXT_BY_CLASS = {name: family for family in TEXT_FAMILIES for name in family.classes}


def text_family_of(module: nn.Module) -> Family:
    """The family that reads a text tower, or a pair that contains one.

    Raises:
        UnsupportedModelError: no family reads it.
    """
    name = full_name(module)
    if name not in _TEXT_BY_CLASS:
        raise UnsupportedModelError(
            f"expected a text tower whose class Prisma reads (one attention mask for all prompts); found {name}"
        )
    return _TEXT_BY_CLASS[name]


def family_of(module: nn.Module) -> Family:
    """The family that reads a module.

    Raises:
        UnsupportedModelError: no family reads this class. A subclass of a supported class is refused too, because it
            may compute something else.
    """
    name = full_name(module)
    if name in _BY_CLASS:
        return _BY_CLASS[name]
    for parent in type(module).__mro__[1:]:
        if f"{parent.__module__}.{parent.__qualname__}" in _BY_CLASS:
            raise UnsupportedModelError(
                f"expected a model of a class that Prisma reads; found {name}, "
                f"whose forward may differ from that of its parent {parent.__qualname__}"
            )
    found = " and ".join(unsupported_properties(module))
    raise UnsupportedModelError(
        f"expected a model of a class that Prisma reads (`prisma models` lists them); found {name}"
        f"{f', which has {found}' if found else ''}{_inside(module)}"
    )


def _inside(module: nn.Module) -> str:
    """What to load instead of a module that contains one of a known class: a wrapper, an adapter, a larger model."""
    parts = list(module.named_modules())
    if any(type(part).__module__.startswith("peft.") for _, part in parts):
        return "; merge the adapter into the weights first, and load what model.merge_and_unload() returns"
    path, part = next(((path, part) for path, part in parts if full_name(part) in _BY_CLASS), ("", module))
    if not path:
        takes_text = getattr(module, "main_input_name", None) == "input_ids"
        return ", whose input is text" if takes_text else ""
    numbered = any(name.isdigit() for name in path.split("."))
    where = f"model.get_submodule({path!r})" if numbered else f"model.{path}"
    return f"; it contains a {type(part).__name__}: load that, with prisma.load({where})"
