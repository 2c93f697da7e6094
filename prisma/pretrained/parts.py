"""Parts of the sources' modules, recognised by their class: activations, norms, heads."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from prisma.errors import UnsupportedModelError

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
"""Class of an activation module -> the name of our activation."""

NORMS: Mapping[str, str] = {
    "LayerNorm": "layer",
    "LayerNormFp32": "layer",
    "RmsNorm": "rms",
    "RMSNorm": "rms",
    "Aimv2RMSNorm": "rms",
}
"""Class of a norm module -> `norm_kind`."""


def activation(module: nn.Module | Callable[..., Tensor]) -> str:
    """The name of our activation that computes the same. Raises UnsupportedModelError if there is none."""
    name = getattr(module, "__name__", type(module).__name__)
    if getattr(module, "approximate", "none") == "tanh":
        return "gelu_tanh"
    if name not in ACTIVATIONS:
        raise UnsupportedModelError(f"the activation {name} is not supported (supported: {', '.join(ACTIVATIONS)})")
    return ACTIVATIONS[name]


def norm(modules: Iterable[nn.Module]) -> tuple[str, float]:
    """(`norm_kind`, `norm_eps`) that all norms of a model share; an `Identity` is skipped.

    Raises:
        UnsupportedModelError: a norm of an unknown class, or two norms that differ.
    """
    found = {_norm(module) for module in modules if not isinstance(module, nn.Identity)}
    if len(found) > 1:
        raise UnsupportedModelError(f"expected norms of one kind and one eps; found {sorted(found)}")
    return found.pop() if found else ("layer", 1e-6)


def _norm(module: nn.Module) -> tuple[str, float]:
    name = type(module).__name__
    if name not in NORMS:
        raise UnsupportedModelError(f"the norm {name} is not supported (supported: {', '.join(NORMS)})")
    eps = module.eps if hasattr(module, "eps") else module.variance_epsilon
    return NORMS[name], float(eps)  # type: ignore[arg-type]


def has_cut_edge(sides: tuple[int, int], patches: int | tuple[int, int]) -> bool:
    """The config's `cut_edge`: whether the image is not a whole number of patches, so that its right or bottom edge is
    not seen by a convolution whose stride is its kernel.
    """
    pair = (patches, patches) if isinstance(patches, int) else patches
    return any(side % patch for side, patch in zip(sides, pair, strict=True))


def sides(size: int | Sequence[int]) -> tuple[int, int]:
    """A side, or (height, width) -> (height, width)."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def is_present(module: nn.Module | None) -> bool:
    """Whether a part is there and is not an `Identity` in its place."""
    return module is not None and not isinstance(module, nn.Identity)


def first_part(module: nn.Module, *paths: str) -> Any:
    """The submodule at the first of these paths that exists; None if none does."""
    parts = dict(module.named_modules())
    return next((parts[path] for path in paths if path in parts), None)


def n_heads(layer: nn.Module) -> int:
    """The number of heads of a layer's attention: the module's own, not its configuration's, which may have changed."""
    found = (getattr(part, name, None) for part in layer.modules() for name in ("num_attention_heads", "num_heads"))
    return next(n for n in found if isinstance(n, int))


def n_classes(head: nn.Module | None) -> int:
    """The number of classes of a head, 0 if there is none. Raises UnsupportedModelError unless it is one linear map."""
    if head is None or not is_present(head):
        return 0
    if not isinstance(head, nn.Linear):
        raise UnsupportedModelError(f"expected a head that is one linear map; found a {type(head).__name__}")
    return head.out_features
