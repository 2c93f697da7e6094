"""What coders minimise. Every loss is a reconstruction error, plus what makes the code sparse, plus AuxK for the dead.

    error      sum_i |y_i - y_hat_i|^2 / sum_i |y_i|^2: of centred activations nearly the FVU of the batch
    matryoshka the mean of this error over the prefixes of the latents
    sparsity   coefficient * the mean over tokens of  sum_j |z_j| |W_dec,j|  (standard),  of the same of the gate's
               relu(p) (gated),  or of the number of active latents (jumprelu)
    gated      the error of relu(p) W_dec + b_dec too, which trains the gate alone
    AuxK       the error of what the dead latents alone reconstruct of the residual: the k_aux largest raw
               pre-activations among them, decoded without the bias

AuxK takes raw pre-activations: a relu would leave a dead latent without a gradient. It has no bias, because the
reconstruction holds it already: the residual has none.

Shapes: N token, D width of the input, O of the output, M latents.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from prisma.sparse.coders import COUNTED, Coder
from prisma.sparse.kernels import Entries, Matrix, encoded, keep_largest, largest, listed

AUX = 1 / 32
"""The weight of AuxK (Gao et al. 2406.04093)."""
SMALLEST, SMALLEST_RESIDUAL = 1e-2, 1e-4
"""Errors are divided by the squares of what is reconstructed, but by no fewer than these for each number, whose squares
are about 1: a batch of zeros would divide by zero, and one of nearly zeros would outweigh all others."""
BANDWIDTH = 0.5
"""How far from a threshold jumprelu's estimate of the gradient looks, for activations whose numbers are about 1."""


@dataclass(frozen=True)
class Loss:
    """What a step of training needs to know."""

    total: Tensor  # a number, with a gradient
    error: Tensor  # a number: the reconstruction error
    active: Tensor  # [m], bool: which latents were active on a token of the batch
    l0: Tensor  # a number: active latents per token


class _Step(torch.autograd.Function):
    """p > theta as numbers, or relu(p) there, with an estimate of the gradient by theta: a box of width w around it."""

    @staticmethod
    def forward(ctx: Any, p: Tensor, theta: Tensor, scaled: bool) -> Tensor:
        ctx.save_for_backward(p, theta)
        ctx.scaled = scaled
        on = p > theta
        return on * p.relu() if scaled else on.to(p.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        p, theta = ctx.saved_tensors
        near = ((p - theta).abs() < BANDWIDTH / 2) * grad / -BANDWIDTH
        of_theta = (near * theta if ctx.scaled else near).sum(0)
        return (grad * ((p > theta) & (p > 0)) if ctx.scaled else None), of_theta, None


def jump(p: Tensor, theta: Tensor) -> Tensor:
    """relu(p) where p > theta [m], else 0: [N, m]. The gradient by theta is -(theta / w) K((p - theta) / w)."""
    return _Step.apply(p, theta, True)


def step(p: Tensor, theta: Tensor) -> Tensor:
    """1 where p > theta [m], else 0: [N, m]. Its gradient by theta is -(1 / w) K((p - theta) / w), and by p zero."""
    return _Step.apply(p, theta, False)


def loss(
    coder: Coder,
    x: Tensor,
    y: Tensor,
    *,
    sparsity: float | Tensor,
    dead: Tensor,
    k_aux: int,
    n_dead: Tensor | None = None,
) -> Loss:
    """The loss of a coder on one batch.

    Args:
        x: [N, d], inputs, centred and scaled so that their numbers are about 1.
        y: [N, O], what is reconstructed: x itself, but for transcoders.
        sparsity: the coefficient of the sparsity term; of kinds that count their active latents, not used.
        dead: the latents that AuxK revives, by number.
        k_aux: how many of them for each token at most.
        n_dead: a number: how many of `dead`, from the first on, are meant; None: all.
    """
    found, residual = _without_auxk(coder, x, y, sparsity)
    if len(dead) and k_aux:
        revived = auxk(coder, x, residual.detach(), dead, min(k_aux, len(dead)), n_dead)
        found = replace(found, total=found.total + AUX * revived)
    return found


@torch.no_grad()
def best_scale(coder: Coder, x: Tensor, y: Tensor) -> Tensor:
    """The number that the code of a coder without biases is to be multiplied by, for the least error; else 1.

    It is <y, y_hat> / <y_hat, y_hat>, over all tokens. Shapes as in `loss`.
    """
    guess = y - _without_auxk(coder, x, y, 0.0)[1]
    scale = (y * guess).sum() / guess.square().sum()
    return torch.where(scale.isfinite() & (scale > 0), scale, 1.0)


def auxk(coder: Coder, x: Tensor, residual: Tensor, dead: Tensor, k: int, n_dead: Tensor | None = None) -> Tensor:
    """The error with which some dead latents reconstruct the residual [N, O], each token by k of them."""
    p = coder.centred(x) @ coder.W_enc[:, dead] + coder.bias[dead]
    if n_dead is not None:  # the others come last, and are worth nothing if they are taken
        p = torch.where(torch.arange(len(dead), device=p.device) < n_dead, p, -torch.inf)
    if listed(p, len(dead)):
        at = largest(p, k)
        guess = Entries(_finite(at.take(p)), at).times(coder.W_dec[dead])
    else:
        guess = _finite(keep_largest(p, k, p)) @ coder.W_dec[dead]
    return (residual - guess).square().sum() / _size(residual - residual.mean(0), SMALLEST_RESIDUAL)


def _finite(z: Tensor) -> Tensor:
    """A code with zeros for what was minus infinity."""
    return z.masked_fill(z == -torch.inf, 0.0)


def _size(y: Tensor, smallest: float = SMALLEST) -> Tensor:
    """What an error in the reconstruction of y [N, O] is divided by."""
    return y.square().sum().clamp_min(smallest * y.numel())


def _without_auxk(coder: Coder, x: Tensor, y: Tensor, sparsity: float | Tensor) -> tuple[Loss, Tensor]:
    """The loss without AuxK, and the residual [N, O]."""
    return _counted(coder, x, y) if coder.kind in COUNTED else _penalised(coder, x, y, sparsity)


def _counted(coder: Coder, x: Tensor, y: Tensor) -> tuple[Loss, Tensor]:
    """That of a kind that keeps a number of latents per token."""
    c = coder.config
    code: Entries | Matrix
    if listed(x, c.width):
        shift = coder.b_dec if c.centred else None
        code = encoded(x.to(coder.W_enc.dtype), shift, coder.W_enc, coder.bias, c.k or 0, c.kind)
    else:
        code = Matrix(coder.encode(x, as_trained=True))
    size, guess, low = _size(y), coder.b_dec + coder.skipped(x), 0
    errors, residual = [], y
    for high in c.prefixes or (c.width,):
        some = code.between(low, high) if c.prefixes else code
        guess, low = guess + some.times(coder.W_dec), high
        residual = y - guess
        errors.append(residual.square().sum() / size)
    total = torch.stack(errors).mean() if c.prefixes else errors[0]
    return Loss(total, errors[-1].detach(), code.active, code.count / len(x)), residual


def _penalised(coder: Coder, x: Tensor, y: Tensor, sparsity: float | Tensor) -> tuple[Loss, Tensor]:
    """That of a kind with a sparsity term."""
    p, size = coder.pre(x), _size(y)
    lengths, further = coder.W_dec.norm(dim=-1), p.new_zeros(())
    if coder.kind == "jumprelu":
        z, penalty = jump(p, coder.threshold), step(p, coder.threshold).sum(-1).mean() / coder.config.width
    elif coder.kind == "gated":
        gate = p.relu()
        z = (p > 0) * ((coder.centred(x) @ coder.W_enc) * coder.r_mag.exp() + coder.b_mag).relu()
        penalty = (gate * lengths).sum(-1).mean() / coder.config.d
        guess = gate @ coder.W_dec.detach() + coder.b_dec.detach() + coder.skipped(x)
        further = (y - guess).square().sum() / size
    else:
        z = p.relu()
        penalty = (z * lengths).sum(-1).mean() / coder.config.d
    residual = y - coder.decode(z) - coder.skipped(x)
    error, on = residual.square().sum() / size, z.detach() > 0
    return Loss(error + sparsity * penalty + further, error.detach(), on.any(0), on.sum() / len(x)), residual
