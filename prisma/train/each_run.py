"""A function of one run, for the stacked weights of several at once: torch's `vmap`, with what it does not do well."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


def of_each_run(function: Callable[..., Tensor], dims: tuple[int | None, ...] | int = 0) -> Callable[..., Tensor]:
    """The function of one run for all of them."""

    def of_each(*arguments: object) -> Tensor:
        with _Merged():
            found: Tensor = torch.vmap(function, in_dims=dims)(*arguments)
        return found

    return of_each


class _Merged(TorchFunctionMode):
    """What torch does not stack well: a linear map of every image alone, with copies of its weights; and attention."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.linear and args[0].ndim > 2:
            x, *rest = args
            return func(x.flatten(0, -2), *rest, **(kwargs or {})).unflatten(0, x.shape[:-1])
        if func is F.scaled_dot_product_attention and (kwargs or {}).get("attn_mask") is None and len(args) == 3:
            return _Attention.apply(*args)
        return func(*args, **(kwargs or {}))


class _Attention(torch.autograd.Function):
    """Fused attention of images of several runs, which are only more images to it. Its gradient is torch's own."""

    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        raise NotImplementedError  # it is called on stacks alone

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        raise NotImplementedError

    @staticmethod
    def vmap(info: Any, dims: Sequence[int | None], *stacks: Tensor) -> tuple[Tensor, int]:
        q, k, v = (
            (x.movedim(dim, 0) if dim is not None else x.expand(info.batch_size, *x.shape)).flatten(0, 1)
            for x, dim in zip(stacks, dims, strict=True)
        )
        return F.scaled_dot_product_attention(q, k, v).unflatten(0, (info.batch_size, -1)), 0
