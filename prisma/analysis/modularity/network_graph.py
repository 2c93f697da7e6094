"""The graph of any network of torch whose layers are linear or convolutions: MLPs, CNNs, with residual connections.

The network's forward is followed once without numbers (`torch.fx`), to see which layer reads which. Between layers, a
channel goes through what works on each channel by itself (activations, norms, pooling, dropout), through sums, products
and concatenations, and through a flattening before a linear layer. So a unit is connected with every unit that its
output reaches without another layer between them. Norms and softmax count as working on each channel: what they share
is a divisor. Whatever is not in the table of `operations` is refused.

Source: Filan et al. 2103.03386 (which folds no batch norm into a layer by default, and knows no residual connections).
"""

from dataclasses import replace
from typing import Any

from torch import fx, nn

from prisma.analysis.modularity.followed import ADVICE, Followed, Refused, by_channel, read_by
from prisma.analysis.modularity.graph import Graph, joined
from prisma.analysis.modularity.layer_weights import (
    BATCH_NORMS,
    LAYERS,
    NORMS,
    expect_computed,
    expect_no_hook,
    gains,
    is_pruned,
    strengths,
)
from prisma.analysis.modularity.operations import RULES, of_module
from prisma.analysis.modularity.reshaping import UNKNOWN
from prisma.errors import PrismaError

OF_SHAPES = ("shape", "ndim", "device", "dtype")
"""Attributes of a tensor that say nothing of its channels."""
AXES = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}
"""Class -> the axes of places behind the channels."""


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
    return _Follower(nn.Sequential(network) if isinstance(network, LAYERS) else network).graph()


class _Follower:
    def __init__(self, network: nn.Module) -> None:
        self.network, self.parts = network, dict(network.named_modules())
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
        self.found: dict[fx.Node, Any] = {}  # what depends on the input as `Followed`, else its value, or UNKNOWN

    def graph(self) -> Graph:
        for node in self.nodes:
            if node.op != "output":
                try:
                    self.found[node] = self._output(node)
                except Refused as error:
                    what = f"{_called(node, self.parts)}{f' ({error})' if str(error) else ''}"
                    raise PrismaError(f"expected channels that can be followed; found {what}: {ADVICE}") from None
        if not self.edges:
            raise PrismaError("expected a network with linear layers or convolutions; found none")
        return joined(self.layers, self.edges, self.fixed, pruned=self.pruned, metadata={"graph": "weights"})

    def _output(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            return Followed({node.name: 1.0})
        if node.op == "get_attr":
            return _attribute(self.network, str(node.target))
        args = fx.node.map_arg(node.args, self.found.__getitem__)
        more = fx.node.map_arg(node.kwargs, self.found.__getitem__)
        followed = [x for x in map(self.found.__getitem__, node.all_input_nodes) if isinstance(x, Followed)]
        if not followed:
            return self._constant(node, args, more)
        if node.op == "call_module":
            if len(node.all_input_nodes) > 1:
                raise Refused("several inputs")
            return self._module(node, followed[0])
        name = getattr(node.target, "__name__", str(node.target))
        if name in ("size", "dim") or (name == "getattr" and args[1] in OF_SHAPES):
            return UNKNOWN
        if name not in RULES:
            raise Refused("")
        return RULES[name](args, more, self.layers)

    def _constant(self, node: fx.Node, args: Any, more: Any) -> Any:
        """The value of what depends on no input: a weight that is reshaped, or UNKNOWN if it depends on a shape."""
        used = [self.found[x] for x in node.all_input_nodes]
        if node.op == "call_module" or not used or any(x is UNKNOWN for x in used):
            return UNKNOWN
        target: Any = node.target
        return target(*args, **more) if node.op == "call_function" else getattr(args[0], target)(*args[1:], **more)

    def _module(self, node: fx.Node, x: Followed) -> Followed:
        name, part = str(node.target), self.parts[str(node.target)]
        if isinstance(part, LAYERS):
            return self._layer(node, name, part, x)
        if isinstance(part, NORMS):
            return self._norm(node, name, part, x)
        expect_no_hook(part, name)
        return of_module(part, x, self.layers)

    def _norm(self, node: fx.Node, name: str, part: nn.Module, x: Followed) -> Followed:
        """A norm multiplies channels; if they are along another axis than its weights, it is refused."""
        factors = None if node in self.folded else gains(part, name)
        if factors is None or x.axis is None:
            return x if factors is None else by_channel(x, factors.numpy(), self.layers)
        last = type(part) in (nn.LayerNorm, nn.RMSNorm)
        if (last and x.axis != -1) or (not last and x.position not in (None, 1)):
            raise Refused("a norm along another axis than that of channels")
        return by_channel(x, factors.numpy(), self.layers)

    def _layer(self, node: fx.Node, name: str, part: nn.Module, x: Followed) -> Followed:
        """Connect a layer with what it reads; its own units are what it gives."""
        weight, axes = strengths(part, name), _places(part)
        expect_computed(part, name)
        if x.axis is not None and (x.axis != -1 - axes or (axes and x.flat)):
            raise Refused("a layer along another axis than that of channels")
        after = next(iter(node.users), None)
        norm = self.parts.get(str(after.target)) if after is not None and after.op == "call_module" else None
        if after is not None and len(node.users) == 1 and isinstance(norm, BATCH_NORMS):
            factors = gains(norm, str(after.target))
            if factors is not None and len(factors) != len(weight):
                raise PrismaError(f"expected a norm of {len(weight)} channels; found one of {len(factors)}: {ADVICE}")
            self.folded.add(after)
            weight = weight if factors is None else weight * factors[:, None]
        for source in x.units:
            edges = read_by(weight.numpy(), x, source, self.layers, name)
            self.edges[source, name] = self.edges[source, name] + edges if (source, name) in self.edges else edges
            if getattr(part, "groups", 1) > 1:
                self.fixed.add((source, name))
        self.layers[name] = len(weight)
        rank = axes + 2 if axes else x.rank
        for read in node.all_input_nodes:
            if x.axis is None and read.op == "placeholder":  # now its axes are known, for what else reads it
                self.found[read] = replace(x, axis=-1 - axes, rank=rank)
        return Followed({name: 1.0}, -1 - axes, rank)


def _places(part: nn.Module) -> int:
    """The axes behind the channels of what a layer gives."""
    return next((axes for kind, axes in AXES.items() if isinstance(part, kind)), 0)


def _attribute(network: nn.Module, path: str) -> Any:
    found: Any = network
    for name in path.split("."):
        found = getattr(found, name)
    return found


def _called(node: fx.Node, parts: dict[str, nn.Module]) -> str:
    """What a step of the forward is, for a message."""
    if node.op == "call_module":
        return f"{type(parts[str(node.target)]).__name__} at {node.target}"
    return f"{getattr(node.target, '__name__', node.target)} at {node.name}"
