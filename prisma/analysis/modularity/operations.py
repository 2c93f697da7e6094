"""What the operations of a forward do to channels: a table of those that are known.

Shapes are not known, so each rule says what it must know of the axes, and refuses otherwise (`followed.Refused`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from prisma.analysis.modularity.followed import (
    Followed,
    Refused,
    by_channel,
    concatenated,
    scaled,
    together,
    width_of,
)
from prisma.analysis.modularity.reshaping import (
    UNKNOWN,
    Layers,
    Rule,
    flattened,
    padded,
    permuted,
    picked,
    squeezed,
    transposed,
    unsqueezed,
    viewed,
    whole,
    without,
)


def one_by_one(args: Sequence[Any], more: Mapping[str, Any], layers: Layers) -> Followed:
    """Each number by itself, or divided by something that all channels share, as in softmax."""
    first, *others = [x for x in (*args, *more.values()) if isinstance(x, Followed)]
    if others or first is not (args[0] if args else first):
        raise Refused("several tensors")
    return first


def arithmetic(kind: str) -> Rule:
    """Sums, products, maxima: of tensors of the forward, numbers, and tensors of the network."""

    def rule(args: Sequence[Any], more: Mapping[str, Any], layers: Layers) -> Followed:
        if set(more) - {"alpha"} or len(args) != 2:
            raise Refused(f"{len(args)} arguments and {', '.join(more)}")
        alpha = more.get("alpha", 1)
        sides = [args[0], scaled(args[1], alpha) if isinstance(args[1], Followed) and alpha != 1 else args[1]]
        tensors = [x for x in sides if isinstance(x, Followed)]
        if len(tensors) == 2:
            return together(tensors, layers, summed=kind == "sum")
        (x,), constant = tensors, sides[0] if isinstance(sides[1], Followed) else sides[1]
        if constant is UNKNOWN and kind in ("product", "quotient"):
            raise Refused("a factor that depends on the shape of the input")
        if isinstance(constant, Tensor) and constant.numel() > 1:
            wide = x.axis is not None and constant.ndim >= -x.axis and constant.shape[x.axis]
            if constant.ndim > (x.rank or constant.ndim) or wide not in (False, 1, width_of(x.units, layers)):
                raise Refused("a tensor of the network with more axes or channels")
        if kind == "product":
            return _times(x, constant, layers)
        if kind == "quotient" and sides[0] is x:
            return _times(x, 1 / constant, layers)
        return x

    return rule


def _times(x: Followed, constant: Any, layers: Layers) -> Followed:
    if not isinstance(constant, Tensor) or constant.numel() == 1:
        return scaled(x, float(constant))
    shape, factors = list(constant.shape), constant.detach().double().cpu().flatten().numpy()
    if x.axis is None or len(shape) < -x.axis or shape[x.axis] != len(factors):
        raise Refused(f"a factor of shape {shape} that is not one for each channel")
    return by_channel(x, factors, layers)


def pooled(axes: int) -> Rule:
    """Over the last axes, none of which may be that of the channels."""

    def rule(args: Sequence[Any], more: Mapping[str, Any], layers: Layers) -> Followed:
        x = one_by_one(args, more, layers)
        if x.axis is not None and x.axis >= -axes:
            raise Refused("a pooling over channels")
        if more.get("divisor_override") is not None or more.get("return_indices"):
            raise Refused("a divisor of its own, or indices")
        return x

    return rule


def reduced(args: Sequence[Any], more: Mapping[str, Any], layers: Layers) -> Followed:
    """A mean or a maximum over axes that are not that of the channels."""
    x, *rest = args
    dims, keep = [*rest, *[None] * 2][:2]
    dims, keep = more.get("dim", dims), more.get("keepdim", keep)
    if dims is None or set(more) - {"dim", "keepdim", "dtype"} or x.axis is None or len(rest) > 2:
        raise Refused("one over all axes, or of an input that no layer has read")
    gone = x.places(whole(dims))
    if x.axis in gone:
        raise Refused("one over channels")
    return x if keep else without(x, gone)


def joined_along(args: Sequence[Any], more: Mapping[str, Any], layers: Layers) -> Followed:
    """A concatenation."""
    parts, dim = args[0], more.get("dim", more.get("axis", args[1] if len(args) > 1 else 0))
    if not all(isinstance(x, Followed) for x in parts) or dim == 0:
        raise Refused("tensors of the network among them, or images after images")
    return concatenated(parts, dim, layers)


def _table() -> dict[str, Rule]:
    rules: dict[str, Rule] = dict.fromkeys(ONE_BY_ONE, one_by_one)
    for kind, names in ARITHMETIC.items():
        rules |= dict.fromkeys(names, arithmetic(kind))
    for axes in (1, 2, 3):
        rules |= dict.fromkeys((name.format(axes) for name in POOLING), pooled(axes))
    rules |= dict.fromkeys(("mean", "amax", "amin"), reduced)
    rules |= dict.fromkeys(("view", "reshape"), viewed)
    rules |= dict.fromkeys(("cat", "concat", "concatenate"), joined_along)
    return rules | {
        "flatten": flattened(0), "squeeze": squeezed, "unsqueeze": unsqueezed, "permute": permuted,
        "transpose": transposed, "swapaxes": transposed, "pad": padded, "getitem": picked, "interpolate": pooled(1),
    }  # fmt: skip


ONE_BY_ONE = (
    "relu", "relu_", "relu6", "leaky_relu", "leaky_relu_", "elu", "elu_", "selu", "celu", "gelu", "silu", "mish",
    "sigmoid", "sigmoid_", "tanh", "tanh_", "softplus", "softsign", "softshrink", "hardshrink", "tanhshrink",
    "threshold", "hardtanh", "hardsigmoid", "hardswish", "logsigmoid", "rrelu", "prelu", "clamp", "clamp_", "clip",
    "softmax", "log_softmax", "softmin", "neg", "abs", "square", "exp", "sqrt", "pow", "dropout", "dropout1d",
    "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "stochastic_depth", "contiguous", "clone",
    "detach", "float", "double", "half", "to", "type",
)  # fmt: skip
ARITHMETIC = {
    "sum": ("add", "add_", "iadd", "sub", "sub_", "isub"),
    "product": ("mul", "mul_", "imul", "multiply"),
    "quotient": ("truediv", "itruediv", "div", "div_"),
    "maximum": ("maximum", "minimum"),
}
POOLING = ("max_pool{}d", "avg_pool{}d", "adaptive_avg_pool{}d", "adaptive_max_pool{}d")
RULES: Mapping[str, Rule] = _table()
"""Name of a function or method -> its rule."""
SIMPLE = (
    "ReLU", "ReLU6", "LeakyReLU", "ELU", "SELU", "CELU", "GELU", "SiLU", "Mish", "Sigmoid", "Tanh", "Softplus",
    "Softsign", "Softshrink", "Hardshrink", "Tanhshrink", "Threshold", "Hardtanh", "Hardsigmoid", "Hardswish",
    "LogSigmoid", "RReLU", "PReLU", "Softmax", "LogSoftmax", "Softmax2d", "Softmin", "Identity", "Dropout", "Dropout1d",
    "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout",
)  # fmt: skip
OF_PLACES = (
    "MaxPool{}d", "AvgPool{}d", "AdaptiveAvgPool{}d", "AdaptiveMaxPool{}d", "ConstantPad{}d", "ZeroPad{}d",
    "ReflectionPad{}d", "ReplicationPad{}d", "CircularPad{}d",
)  # fmt: skip
OF_MODULES: Mapping[type[nn.Module], str] = {
    **{getattr(nn, name): "relu" for name in SIMPLE},
    **{getattr(nn, name.format(n)): f"max_pool{n}d" for name in OF_PLACES for n in (1, 2, 3)},
    **dict.fromkeys((nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d), "interpolate"),
    nn.Flatten: "flatten",
}
"""Class of torch -> the function that has its rule."""


def of_module(part: nn.Module, x: Followed, layers: Layers) -> Followed:
    """What a module without a layer in it gives. Raises Refused: it is not known."""
    name = OF_MODULES.get(type(part))
    if name is None or getattr(part, "return_indices", False) or getattr(part, "divisor_override", None):
        raise Refused("")
    settings = [part.start_dim, part.end_dim] if isinstance(part, nn.Flatten) else []
    return RULES[name]([x, *settings], {}, layers)
