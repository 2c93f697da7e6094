"""Which layer to edit: the one whose MLP, restored in a run on a corrupted object, gives most of the class back."""

import torch
from torch import Tensor

from prisma.analysis.border import guarded
from prisma.analysis.patching.causal_tracing import causal_tracing
from prisma.errors import PrismaError, quoted
from prisma.vit import ViT

ROLE_OF = {"class": "class", "object": "object", "background": "context"}
"""Role of keys -> what causal tracing calls these tokens."""


@guarded
def layer_by_tracing(
    model: ViT, images: Tensor, coverage: Tensor, *, role: str = "class", samples: int = 3, seed: int = 0
) -> tuple[int, Tensor]:
    """In which layer does the MLP write most of what the model knows of the object, at the tokens of a role?

    Args:
        images: some that the model classifies correctly; a hundred are enough.
        coverage: [image, patch], the share of each patch that is object.
        role: class, object or background.
        samples, seed: as in `prisma.causal_tracing`.

    Returns:
        the layer, and the indirect effect of the MLP of every layer at this role [layer], in units of probability.

    Raises:
        PrismaError: as `prisma.causal_tracing`, or no such role.
    """
    if role not in ROLE_OF:
        raise PrismaError(f"expected a role: {', '.join(ROLE_OF)}; found {quoted(role)}")
    traced = causal_tracing(model, images, coverage, site="mlp_out", samples=samples, seed=seed)
    units = list(traced.metadata["units"])
    if ROLE_OF[role] not in units:
        raise PrismaError(f"expected images and a model with tokens of the role {role}; found {', '.join(units)}")
    effect = traced.effect[:, units.index(ROLE_OF[role])]
    return int(torch.argmax(effect)), effect
