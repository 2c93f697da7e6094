"""An edit of a class by latents of a sparse coder, without a change of weights: those of one class become another's.

Each class has latents that are more active on its images than on all. As much as a token's code is like the mean code
of the class in its latents, these are taken away, and the mean code of the target in its own is written in their place:

    share = (z . a) / (a . a),    x' = x + share (b - a) W_dec        a, b: mean codes, zero but for the latents chosen

A token without the class's latents stays as it is. It is measured as every edit: `measure_edit(model, edits, ...)`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from prisma.analysis.border import record
from prisma.batching import inputs_per_pass
from prisma.editing.request import Request
from prisma.edits import Edit
from prisma.errors import PrismaError, quoted
from prisma.sparse.belonging import expect_trained_on
from prisma.sparse.coders import Coder
from prisma.sparse.splicing import expect_written


@dataclass(frozen=True, eq=False)
class Swap(Edit):
    """As much as an activation has the latents of one code, it gets those of another instead.

    Attributes:
        coder: of the site that is edited.
        taken, given: the two codes [m].
    """

    coder: Coder
    taken: Tensor
    given: Tensor

    def __call__(self, x: Tensor, axes: tuple[str, ...]) -> Tensor:
        z = self.coder.encode(expect_written(self.coder, x))
        share = (z @ self.taken / self.taken.square().sum())[..., None]
        return x + (share * ((self.given - self.taken) @ self.coder.W_dec)).to(x.dtype)


@torch.no_grad()
def latent_swap(asked: Request, coder: Coder, *, latents: int = 4, other_model: bool = False) -> dict[str, Edit]:
    """Do a few latents of a coder carry a class? Edits of the coder's site, for `prisma.run` and `measure_edit`.

    Args:
        coder: of a site with tokens, such as `blocks.5.resid_post`; the class token is edited where there is one.
        latents: how many of each class.
        other_model: take a model with other weights than the coder was trained on.

    Raises:
        PrismaError: a coder of another model, more latents than it has, none of which is active on images of the
            class, or no images of the target.
    """
    expect_trained_on(coder, asked.model, other_model)
    if not 1 <= latents <= coder.config.width:
        raise PrismaError(f"expected from 1 to {coder.config.width} latents; found {quoted(latents)}")
    own, theirs, old = (
        _mean_code(asked, coder, x) for x in (asked.own().images, asked.theirs(), asked.images[asked.old()])
    )
    taken, given = (_strongest(x, x - old, latents) for x in (own, theirs))
    if not bool(taken.any()):
        raise PrismaError(f"expected latents that are active on images of class {asked.source}; found none")
    swap = Swap(coder, taken, given)
    return {coder.site: swap.at(token=0) if asked.model.config.class_token else swap}


def _mean_code(asked: Request, coder: Coder, images: Tensor) -> Tensor:
    """[m]: at the class token, or over all tokens."""
    total = torch.zeros(coder.config.width, device=images.device)
    for some in images.split(inputs_per_pass(asked.model)):
        x = record(asked.model, some, coder.site, stop=True)[1][coder.site]
        z = coder.encode(expect_written(coder, x[:, :1] if asked.model.config.class_token else x))
        total += z.mean(1).sum(0)
    return total / len(images)


def _strongest(code: Tensor, more: Tensor, n: int) -> Tensor:
    """A code without all but the n latents that have most more than usual."""
    kept = torch.zeros_like(code)
    chosen = more.topk(n).indices
    kept[chosen] = code[chosen].clamp(min=0)
    return kept
