"""Keys of an MLP: what its last map reads, at the tokens of one role.

Roles: `class` is the class token, `object` the patches that an object covers, `background` the others, `patches` all of
them. Keys of different roles have different second moments, so each role has a covariance of its own.

Shapes: B image, T token (prefix first), N d_mlp.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from prisma.analysis.border import record
from prisma.batching import inputs_per_pass
from prisma.config import ViTConfig
from prisma.editing.rank_one import Covariance, SecondMoment
from prisma.editing.weight_edit import source_of
from prisma.errors import PrismaError, nearest, quoted
from prisma.vit import ViT

ROLES = ("class", "object", "background", "patches")


def class_of(name: int | str, n_classes: int, names: Sequence[str] = ()) -> int:
    """The number of a class that is given by number or name.

    Raises:
        PrismaError: a model without classes, or no such class; the nearest names are given.
    """
    if not n_classes:
        raise PrismaError("expected a model with classes; found n_classes=0, whose outputs are features")
    if isinstance(name, str) and name in names:
        return list(names).index(name)
    if isinstance(name, str) and not (name.isascii() and name.isdecimal()):
        advice = f"; the nearest: {nearest(name, names)}" if names else ": the model has no names: give the number"
        raise PrismaError(f"expected the name of a class of this model; found {quoted(name)}{advice}")
    if isinstance(name, bool) or not 0 <= int(name) < n_classes:
        raise PrismaError(f"expected a class from 0 to {n_classes - 1}; found {quoted(name)}")
    return int(name)


def key_site(model: ViT, layer: int) -> str:
    """The site of the keys of a layer. Raises PrismaError if there is no such layer, or it has no MLP."""
    layers = model.config.n_layers
    if isinstance(layer, bool) or not isinstance(layer, int) or not 0 <= layer < layers:
        raise PrismaError(f"expected a layer from 0 to {layers - 1}; found {quoted(layer)}")
    if not model.config.d_mlp:
        raise PrismaError("expected a model with MLPs, whose last map is edited; found one of attention alone")
    return f"blocks.{layer}.mlp.{'ln.normalized' if model.config.norm_post else 'post'}"


def tokens_of(config: ViTConfig, role: str, images: int, coverage: Tensor | None = None) -> Tensor:
    """Which tokens have a role: bool [image, token].

    Args:
        coverage: [image, patch] or [image, row, column], the share of each patch that is object.

    Raises:
        PrismaError: no such role; a role that the model or the images do not have.
    """
    if role not in ROLES:
        raise PrismaError(f"expected a role of tokens: {', '.join(ROLES)}; found {quoted(role)}")
    if role == "class":
        if not config.class_token:
            raise PrismaError("expected a model with a class token for the role class; found none: use patches")
        mask_T = torch.arange(config.n_tokens) == 0
        return mask_T.expand(images, -1)
    if role == "patches":
        chosen_BP = torch.ones(images, config.n_patches, dtype=torch.bool)
    else:
        if coverage is None or coverage.flatten(1).shape != (images, config.n_patches):
            found = "none" if coverage is None else list(coverage.shape)
            raise PrismaError(
                f"expected the coverage of {images} images by their objects, [{images}, {config.n_patches}], for the "
                f"role {role}; found {found}: use images with masks, or the role class or patches"
            )
        chosen_BP = (coverage.flatten(1) > 0).cpu() == (role == "object")
    return F.pad(chosen_BP, (config.n_prefix, 0))


@torch.no_grad()
def covariances(
    model: ViT,
    images: Tensor,
    layer: int,
    roles: Sequence[str] = ("class",),
    *,
    coverage: Tensor | None = None,
    batch: int | None = None,
) -> dict[str, Covariance]:
    """How do the keys of each role spread over these images? One pass, for all roles.

    Args:
        images: [image, channel, height, width]; some thousands, of all classes.
        layer: whose MLP is edited.

    Raises:
        PrismaError: as `key_site` and `tokens_of`, or a role that no image has.
    """
    site, source = key_site(model, layer), source_of(model)
    masks = {role: tokens_of(model.config, role, len(images), coverage) for role in roles}
    sums = {role: SecondMoment(covariance_name(site, role), source) for role in roles}
    for rows in torch.arange(len(images)).split(inputs_per_pass(model, batch)):
        keys_BTN = record(model, images[rows], site, stop=True)[1][site]
        for role, mask in masks.items():
            sums[role].add(keys_BTN[mask[rows].to(keys_BTN.device)])
    return {role: some.covariance() for role, some in sums.items()}


def covariance_name(site: str, role: str) -> str:
    """What a covariance states as `of`."""
    return f"{site} at {role}"
