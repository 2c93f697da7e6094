"""Functions that several tables use to make one of our parameters from tensors of a source."""

from collections.abc import Sequence

import torch
from torch import Tensor

from prisma.pretrained.rules import Context, Make


def joined(_: Context, *parts: Tensor) -> Tensor:
    """Concatenated along the first axis: q, k and v."""
    return torch.cat(parts)


def joined_with_zeros(present: Sequence[int]) -> Make:
    """Concatenate q, k and v where `present` is 1, with zeros where it is 0: biases that the source does not have."""

    def make(_: Context, *parts: Tensor) -> Tensor:
        found = iter(parts)
        return torch.cat([next(found) if here else torch.zeros_like(parts[0]) for here in present])

    return make


def chunk(which: int, n: int) -> Make:
    """One of the `n` equal parts of a matrix that holds several, such as q, k and v."""
    return lambda _, x: x.chunk(n)[which]


def flat(_: Context, kernel: Tensor) -> Tensor:
    """A convolution with stride = kernel is a linear map of the flattened patch."""
    return kernel.flatten(1)


def transposed(_: Context, matrix: Tensor) -> Tensor:
    """A matrix that the source multiplies from the right."""
    return matrix.T.contiguous()


def first_row(_: Context, x: Tensor) -> Tensor:
    """x[0]: without an axis of size one."""
    return x[0]


def ones(_: Context, like: Tensor) -> Tensor:
    """Ones in the shape and precision of a tensor."""
    return torch.ones_like(like)


def zeros(_: Context, like: Tensor) -> Tensor:
    """Zeros in the shape and precision of a tensor."""
    return torch.zeros_like(like)


def no_prefix(_: Context, patch_weight: Tensor) -> Tensor:
    """No prefix tokens [0, d_model], in the precision of the patch embedding's weight [d_model, ...]."""
    return patch_weight.new_empty(0, patch_weight.shape[0])


def class_token_with_position(_: Context, token: Tensor, positions: Tensor) -> Tensor:
    """The prefix [1, d_model]: the class token with its position, which in our models is part of the token.

    token: [(1, 1,) d_model]; positions: [(1,) token, d_model], that of the class token first.
    """
    return token.view(1, -1) + positions.flatten(0, -2)[:1]


def patch_positions(context: Context, positions: Tensor) -> Tensor:
    """Positions [(1,) token, d_model] without those of the prefix tokens."""
    return positions.flatten(0, -2)[context.config.n_prefix :]


def averaged_heads(_: Context, *tensors: Tensor) -> Tensor:
    """Two heads, each reading its own token, whose outputs are averaged: one head that reads both tokens.

    Weights [class, d_model] -> [class, 2 d_model]; biases [class] -> [class].
    """
    first, second = (x / 2 for x in tensors)
    return torch.cat([first, second], dim=1) if first.ndim == 2 else first + second


def fact(name: str) -> Make:
    """A value that the reader put in the facts: one tensor for all layers, or a list with one for each layer."""

    def make(context: Context, *_: Tensor) -> Tensor:
        value = context.facts[name]
        return value[context.layer] if isinstance(value, list) else value

    return make


def rotation_table(cos_PD: Tensor, sin_PD: Tensor, *, interleaved: bool) -> Tensor:
    """Cosines and sines [(head,) patch, d_head] -> [2, patch, head or 1, d_head], in our order of a head's components.

    Args:
        interleaved: the source rotates the pairs (2i, 2i + 1) of a head; ours are (i, i + d_head / 2).
    """
    table = torch.stack([x if x.ndim == 3 else x[None] for x in (cos_PD, sin_PD)]).transpose(1, 2)
    return table[..., halves(table.shape[-1])] if interleaved else table


def halves(d_head: int) -> Tensor:
    """The order of a head's components that makes the pairs (2i, 2i + 1) the pairs (i, i + d_head / 2)."""
    return torch.cat([torch.arange(0, d_head, 2), torch.arange(1, d_head, 2)])


def heads_in_halves(x: Tensor, d_head: int) -> Tensor:
    """Rows [(head d_head), ...] of a matrix or bias of q or k, or of their norms: each head reordered by `halves`."""
    return x.unflatten(0, (-1, d_head))[:, halves(d_head)].flatten(0, 1)


def repeated_heads(x: Tensor, d_head: int, n_heads: int) -> Tensor:
    """Rows [(group d_head), ...] of grouped k or v -> [(head d_head), ...]: n_heads / groups heads share a group."""
    groups = x.unflatten(0, (-1, d_head))
    return groups.repeat_interleave(n_heads // len(groups), 0).flatten(0, 1)
