"""The graph of any network of torch whose layers are linear or convolutions: MLPs, CNNs, with residual connections.

The network's forward is followed once without numbers (`torch.fx`), to see which layer reads which. Between layers, a
channel goes through what works on each channel by itself (activations, norms, pooling, dropout), through sums, products
and concatenations, and through a flattening before a linear layer. So a unit is connected with every unit that its
output reaches without another layer between them.

Source: Filan et al. 2103.03386 (which folds no batch norm into a layer by default, and knows no residual connections).
"""

from typing import Any

import numpy as np
import torch
from torch import fx, nn

from prisma.analysis.modularity.graph import Graph, joined
from prisma.analysis.modularity.layer_weights import (
    BATCH_NORMS,
    LAYERS,
    NORMS,
    expect_no_hook,
    gains,
    is_pruned,
    strengths,
)
from prisma.errors import PrismaError, listed

EACH_CHANNEL = {
    "relu", "relu6", "relu_", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "sigmoid", "tanh",
    "softplus", "softsign", "hardtanh", "hardsigmoid", "hardswish", "logsigmoid", "clamp", "clip", "softmax",
    "log_softmax", "neg", "abs", "square", "exp", "sqrt", "pow", "dropout", "dropout1d", "dropout2d", "dropout3d",
    "alpha_dropout", "flatten", "view", "reshape", "squeeze", "unsqueeze", "contiguous", "clone", "detach", "float",
    "double", "to", "type", "add", "add_", "iadd", "sub", "isub", "mul", "mul_", "imul", "truediv", "itruediv",
    "maximum", "minimum", "mean", "sum", "amax", "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d",
    "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool1d", "adaptive_max_pool2d",
    "interpolate", "pad",
}  # fmt: skip
"""Functions and methods that leave every channel where it is."""
REDUCING = {"mean", "sum", "amax"}
OF_TORCH = ("activation", "dropout", "pooling", "padding", "flatten", "linear", "upsampling")
"""Modules of `torch.nn.modules` of which a class without weights leaves every channel where it is."""

Carried = dict[str, Any]
"""Layer -> [unit, channel], how much of each unit is in each channel of a tensor; None: the units are the channels."""


class _Tracer(fx.Tracer):
    """Follows a forward, and takes layers and norms whole, also those of a subclass."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (*LAYERS, *NORMS)) or super().is_leaf_module(m, module_qualified_name)


def network_graph(network: nn.Module) -> Graph:
    """The graph of a network's units: its inputs, and the outputs of every linear layer and convolution.

    Weights are those at inference: batch norm is folded into the layer before it.

    Raises:
        PrismaError: a forward that depends on numbers, a part whose channels cannot be followed, no two layers, a hook,
            or weights that are not finite.
    """
    return _Follower(network).graph()


class _Follower:
    def __init__(self, network: nn.Module) -> None:
        self.parts = dict(network.named_modules())
        try:
            self.nodes = list(_Tracer().trace(network).nodes)
        except Exception as error:  # of any kind: it is the network's own forward
            raise PrismaError(
                f"expected a forward that is the same for all inputs; found one of {type(network).__name__} that could "
                f"not be followed ({error}): pass a part of it, or an nn.Sequential of its layers"
            ) from None
        self.pruned = is_pruned(network)
        self.layers: dict[str, int] = {}
        self.edges: dict[tuple[str, str], Any] = {}
        self.fixed: set[tuple[str, str]] = set()  # edges of layers whose zeros are those of the architecture
        self.folded: set[fx.Node] = set()  # batch norms that are part of the layer before

    def graph(self) -> Graph:
        found: dict[fx.Node, Carried | None] = {}
        for node in self.nodes:
            found[node] = self._output(node, [found[x] for x in node.all_input_nodes])
        if not self.edges:
            raise PrismaError("expected a network with linear layers or convolutions; found none")
        return joined(self.layers, self.edges, self.fixed, pruned=self.pruned, metadata={"graph": "weights"})

    def _output(self, node: fx.Node, inputs: list[Carried | None]) -> Carried | None:
        """What a node's tensor carries; None for what depends on no input, such as a size."""
        carried = [x for x in inputs if x]
        if node.op == "placeholder":
            return {node.name: None}
        if node.op == "output":
            return None
        if not carried:
            return None
        if node.op == "call_module":
            return self._module(node, _sum(carried))
        name = getattr(node.target, "__name__", str(node.target))
        if name in ("size", "getattr", "dim"):
            return None
        if name in ("cat", "concat", "concatenate"):
            return self._concatenated(node, [x for x in inputs if x])
        if name not in EACH_CHANNEL or (name in REDUCING and _of_channels(node)):
            raise PrismaError(f"expected channels that can be followed; found {name} at {node.name}: {_ADVICE}")
        return _sum(carried)

    def _module(self, node: fx.Node, carried: Carried) -> Carried:
        name, part = str(node.target), self.parts[str(node.target)]
        if isinstance(part, LAYERS):
            return self._layer(node, name, part, carried)
        if isinstance(part, NORMS):
            factors = None if node in self.folded else gains(part, name)
            return carried if factors is None else {x: self._times(x, m, factors) for x, m in carried.items()}
        kind = type(part).__module__.removeprefix("torch.nn.modules.")
        without_weights = isinstance(part, nn.PReLU) or next(part.parameters(), None) is None
        if kind not in OF_TORCH or not without_weights:
            found = f"{type(part).__name__} at {name}"
            raise PrismaError(f"expected channels that can be followed; found {found}: {_ADVICE}")
        expect_no_hook(part, name)
        return carried

    def _layer(self, node: fx.Node, name: str, part: nn.Module, carried: Carried) -> Carried:
        """Connect a layer with what it reads; its own units are what it gives."""
        weight = strengths(part, name)
        after = next(iter(node.users), None)
        norm = self.parts.get(str(after.target)) if after is not None and after.op == "call_module" else None
        if after is not None and len(node.users) == 1 and isinstance(norm, BATCH_NORMS):
            self.folded.add(after)
            factors = gains(norm, str(after.target))
            self._expect_channels(len(weight), factors)
            weight = weight if factors is None else weight * factors[:, None]
        for source, channels in carried.items():
            read = _per_channel(weight.numpy(), self._width(source, channels, weight.shape[1], name)).T
            edges = read if channels is None else channels @ read
            self.edges[source, name] = self.edges[source, name] + edges if (source, name) in self.edges else edges
            if getattr(part, "groups", 1) > 1:
                self.fixed.add((source, name))
        self.layers[name] = len(weight)
        return {name: None}

    def _width(self, source: str, channels: Any, inputs: int, reader: str) -> int:
        """How many channels a layer's inputs come from. The first reader of an input says how many it has."""
        if channels is None and source not in self.layers:
            self.layers[source] = inputs
        width = self.layers[source] if channels is None else channels.shape[1]
        if inputs % width:
            raise PrismaError(
                f"expected {reader} to read {width} channels of {source}; found {inputs} inputs: {_ADVICE}"
            )
        return int(width)

    def _times(self, source: str, channels: Any, factors: torch.Tensor) -> Any:
        if channels is None and source not in self.layers:
            self.layers[source] = len(factors)
        whole = _one_to_one(self.layers[source]) if channels is None else channels
        self._expect_channels(whole.shape[1], factors)
        return whole.multiply(factors.numpy()[None]).tocsr()

    @staticmethod
    def _expect_channels(channels: int, factors: torch.Tensor | None) -> None:
        if factors is not None and len(factors) != channels:
            raise PrismaError(f"expected a norm of {channels} channels; found one of {len(factors)}: {_ADVICE}")

    def _concatenated(self, node: fx.Node, carried: list[Carried]) -> Carried:
        """Channels of several tensors, one tensor after the other."""
        dim = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
        unknown = [x for some in carried for x in some if x not in self.layers]
        if dim not in (1, -1, -3) or unknown:
            raise PrismaError(
                f"expected a concatenation of the channels of layers; found dim={dim} of {listed(unknown)}"
            )
        widths = [self._channels(some) for some in carried]
        starts, total = np.cumsum([0, *widths]), sum(widths)
        placed: list[Carried] = []
        for some, start, width in zip(carried, starts, widths, strict=False):
            here = _one_to_one(width, total, int(start))
            placed.append({x: here if m is None else m @ here for x, m in some.items()})
        return _sum(placed)

    def _channels(self, carried: Carried) -> int:
        return next(self.layers[x] if m is None else m.shape[1] for x, m in carried.items())


_ADVICE = "pass a part of the network, or an nn.Sequential of its layers"


def _sum(carried: list[Carried]) -> Carried:
    """What a sum, or a product, of tensors carries. A unit that comes to the same channel twice counts once."""
    merged: Carried = {}
    for some in carried:
        for source, channels in some.items():
            known = merged.get(source, channels)
            if known is None or channels is None:
                other = known if channels is None else channels
                merged[source] = None if other is None else other.maximum(_one_to_one(*other.shape))
            else:
                merged[source] = known.maximum(channels)
    return merged


def _one_to_one(units: int, channels: int | None = None, first: int = 0) -> Any:
    """[unit, channel]: every unit is one channel, from the first on."""
    from scipy import sparse

    return sparse.eye_array(units, channels, k=first, format="csr")


def _per_channel(weight: np.ndarray, width: int) -> np.ndarray:
    """[unit, channel] of weights [unit, input]: a layer after a flattening reads every place of a channel."""
    return weight.reshape(len(weight), width, -1).sum(2)


def _of_channels(node: fx.Node) -> bool:
    """Whether a mean or a sum is over channels too: without axes, or with axis 1."""
    dims = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    return dims is None or 1 in (dims if isinstance(dims, tuple | list) else (dims,))
