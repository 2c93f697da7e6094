"""What a coder has to be better than: baselines that are measured on the same tokens, each a row beside it.

| name | what it is |
|---|---|
| random decoder | a coder of the same size whose directions stay as they were drawn; the rest is trained |
| random encoder | the same with the encoder as it was drawn |
| pca | principal components; the k largest of each token by absolute value are kept |
| neurons | the numbers of the activation themselves, centred; the k largest by absolute value are kept |

On known features, coders with a frozen random decoder score nearly as well as trained ones in some ways (2602.14111):
a number that does not beat it says nothing about what was learned.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from prisma.data.pictures import Pictures
from prisma.runs import Model
from prisma.sparse.activations import Source, Stream
from prisma.sparse.coders import COUNTED, Coder, CoderConfig
from prisma.sparse.jobs import Wanted
from prisma.sparse.training import train_many

FROZEN = {"random decoder": "decoder", "random encoder": "encoder"}


def baselines(
    coder: Coder,
    model: Model | Mapping[str, Model],
    images: Tensor | Pictures,
    source: Source,
    *,
    k: int,
    tokens: str | tuple[str, ...],
    steps: int,
    seed: int = 0,
) -> dict[str, Coder]:
    """Name -> a coder, fitted to images on which nothing is measured. A transcoder has the first two alone.

    Args:
        images: on which they are fitted.
        source: the activations of these images.
        k: active latents of a token.
        tokens, steps, seed: as in `train_many`.
    """
    c = coder.config
    kind = c.kind if c.kind in COUNTED else "batchtopk"  # k latents per token on average, as the penalised kinds have
    wanted = [
        Wanted(
            site=c.sites,
            width=c.width,
            kind=kind,
            k=k,
            target=c.target,
            skip=c.skip,
            prefixes=c.prefixes,
            seed=seed,
            frozen=part,
        )
        for part in FROZEN.values()
    ]
    trained = train_many(model, images, wanted, steps=steps, tokens=tokens, held_out=0.0, order_seed=seed)
    found = dict(zip(FROZEN, trained, strict=True))
    if c.target is None:
        acts = Stream(source, range(len(source)), 1, seed).sample(65_536)
        x = torch.cat([acts[site] for site in c.sites], -1)
        found |= {"pca": _of_basis(coder, x, principal_axes(x), k), "neurons": _of_basis(coder, x, torch.eye(c.d), k)}
    return found


def principal_axes(x: Tensor) -> Tensor:
    """[d, d]: the axes of tokens [N, d] in rows, those with the largest variance first."""
    centred = (x - x.mean(0)).double()
    axes = torch.linalg.eigh(centred.T @ centred).eigenvectors.T.flip(0)
    return axes.to(x.dtype)


@torch.no_grad()
def _of_basis(coder: Coder, x: Tensor, axes: Tensor, k: int) -> Coder:
    """A coder with an orthonormal basis [d, d], which keeps the k largest coordinates around the mean of x [N, d].

    Largest by absolute value: the sign of an axis is arbitrary, and this is the choice with the least error.
    """
    c = coder.config
    found = Coder(CoderConfig("abstopk", c.d, c.d, min(k, c.d), c.sites, c.widths)).to(x)
    found.W_dec.copy_(axes)
    found.W_enc.copy_(axes.T)
    found.b_dec.copy_(x.mean(0))
    return found.requires_grad_(False)
