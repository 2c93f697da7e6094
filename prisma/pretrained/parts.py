"""Parts that the sources build from, recognised by their class; and what several tables make of their tensors."""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from prisma.pretrained.rules import Context, UnsupportedModelError

ACTIVATIONS: Mapping[str, str] = {
    "GELU": "gelu",
    "GELUTanh": "gelu_tanh",
    "QuickGELU": "quick_gelu",
    "ReLU": "relu",
    "SiLU": "silu",
    "GELUActivation": "gelu",
    "NewGELUActivation": "gelu_tanh",
    "AccurateGELUActivation": "gelu_tanh",
    "FastGELUActivation": "gelu_tanh",  # its constant has eleven digits
    "QuickGELUActivation": "quick_gelu",
    "SiLUActivation": "silu",
}
"""Class of an activation module -> ours."""

NORMS: Mapping[str, str] = {
    "LayerNorm": "layer",
    "LayerNormFp32": "layer",
    "RmsNorm": "rms",
    "RMSNorm": "rms",
    "Aimv2RMSNorm": "rms",
}
"""Class of a norm module -> `norm_kind`."""


def activation(module: nn.Module | Callable[..., Tensor]) -> str:
    """Raises UnsupportedModelError if it is not one of ours."""
    name = getattr(module, "__name__", type(module).__name__)
    if getattr(module, "approximate", "none") == "tanh":
        return "gelu_tanh"
    if name not in ACTIVATIONS:
        raise UnsupportedModelError(f"the activation {name} is not supported; those that are: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def norm(modules: Iterable[nn.Module]) -> tuple[str, float]:
    """(`norm_kind`, `norm_eps`) that all norms of a model share; what is no norm (Identity) does not count.

    Raises:
        UnsupportedModelError: a norm of another kind, or two that differ.
    """
    found = {_norm(module) for module in modules if not isinstance(module, nn.Identity)}
    if len(found) > 1:
        raise UnsupportedModelError(
            f"norms that differ within a model are not supported; found {sorted(found)} (kind, eps)"
        )
    return found.pop() if found else ("layer", 1e-6)


def _norm(module: nn.Module) -> tuple[str, float]:
    name = type(module).__name__
    if name not in NORMS:
        raise UnsupportedModelError(f"the norm {name} is not supported; those that are: {', '.join(NORMS)}")
    eps = module.eps if hasattr(module, "eps") else module.variance_epsilon
    return NORMS[name], float(eps)  # type: ignore[arg-type]


def torn(sides: tuple[int, int], patches: int | tuple[int, int]) -> bool:
    """`cut_edge`: a convolution whose stride is its kernel does not see what lies beyond an image's whole patches."""
    pair = (patches, patches) if isinstance(patches, int) else patches
    return any(side % patch for side, patch in zip(sides, pair, strict=True))


def there(module: nn.Module | None) -> bool:
    """Whether a part is more than a placeholder."""
    return module is not None and not isinstance(module, nn.Identity)


def n_heads(layer: nn.Module) -> int:
    """Of the attention within a layer, as it was built, whatever its configuration says now."""
    found = (getattr(part, name, None) for part in layer.modules() for name in ("num_attention_heads", "num_heads"))
    return next(n for n in found if isinstance(n, int))


def n_classes(head: nn.Module | None) -> int:
    """Of a head, which must be one linear map; 0 if it is a placeholder. Raises UnsupportedModelError."""
    if not there(head):
        return 0
    if not isinstance(head, nn.Linear):
        raise UnsupportedModelError(
            f"a head that is a {type(head).__name__} is not supported: it must be one linear map"
        )
    return head.out_features


def rotation_table(cos_PD: Tensor, sin_PD: Tensor, *, interleaved: bool) -> Tensor:
    """Cosines and sines [(head,) patch, d_head] -> [2, patch, head or 1, d_head], in our order of a head's numbers."""
    table = torch.stack([x if x.ndim == 3 else x[None] for x in (cos_PD, sin_PD)]).transpose(1, 2)
    return table[..., halves(table.shape[-1])] if interleaved else table


def halves(d_head: int) -> Tensor:
    """Which number of a head stands where, so that pairs (2i, 2i + 1) become (i, i + d_head / 2)."""
    return torch.cat([torch.arange(0, d_head, 2), torch.arange(1, d_head, 2)])


def heads_in_halves(x: Tensor, d_head: int) -> Tensor:
    """Rows (head, d_head) of a matrix or bias of q or k, or of their norms: each head reordered by `halves`."""
    return x.unflatten(0, (-1, d_head))[:, halves(d_head)].flatten(0, 1)


def repeated_heads(x: Tensor, d_head: int, n_heads: int) -> Tensor:
    """Rows (group, d_head) of grouped k or v -> (head, d_head): each group stands for n_heads / groups heads."""
    groups = x.unflatten(0, (-1, d_head))
    return groups.repeat_interleave(n_heads // len(groups), 0).flatten(0, 1)


def fixed(fact: str) -> Callable[..., Tensor]:
    """A rule's `make` that takes a fact of the reader's, one for all layers or a list of one per layer."""

    def make(context: Context, *_: Tensor) -> Tensor:
        value = context.facts[fact]
        return value[context.layer] if isinstance(value, list) else value

    return make
