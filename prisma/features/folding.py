"""Batch norms as part of the convolutions before them, which saves a third of the time of an optimisation on a CPU."""

import copy
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

CLOSE = 1e-4
"""By how much a part of the two networks may differ, as a share of its largest number: rounding gives 1e-6."""


def folded(network: nn.Module, run: Callable[[nn.Module], Mapping[str, Tensor]], kept: Collection[str]) -> nn.Module:
    """A copy of a network that computes the same in fewer steps, or the network itself if there is none.

    A convolution and the batch norm that reads it, `(conv(x) - mean) / std * weight + bias`, are one convolution. The
    two networks are compared: where another part reads the convolution too, they differ, and there is no copy. Weights
    that stay are shared.

    Args:
        network: in evaluation mode.
        run: a network -> what is to stay the same, for some images.
        kept: names of parts whose own outputs are to stay, such as that of a convolution before its batch norm.
    """
    pairs = [(conv, norm) for conv, norm in _pairs(network, run) if conv not in kept]
    if not pairs:
        return network
    wanted = run(network)
    try:
        found = _copied(network, pairs)
        got = run(found)
    except Exception:  # of any kind: it holds what has no copy, or its own code looks into a part that is gone
        return network
    return found if all(_same(got[site], x) for site, x in wanted.items()) else network


def _copied(network: nn.Module, pairs: Collection[tuple[str, str]]) -> nn.Module:
    """A copy in which each of these convolutions does what its batch norm did."""
    weights = {id(x): x for x in (*network.parameters(), *network.buffers())}
    found = copy.deepcopy(network, weights)  # a memo in which every weight is its own copy
    for conv, norm in pairs:
        _fold(found, conv, norm)
    changing: list[Any] = [part for part in found.modules() if getattr(part, "inplace", False) is True]
    for part in changing:  # where gradients need what a part changes, torch copies that first
        part.inplace = False
    return found


def _same(x: Tensor, wanted: Tensor) -> bool:
    """Whether two parts differ by rounding alone; of zeros only, such as a relu that is off, nothing can be said."""
    largest = float(wanted.abs().max())
    return largest > 0 and float((x - wanted).abs().max()) <= CLOSE * largest


def _pairs(network: nn.Module, run: Callable[[nn.Module], object]) -> list[tuple[str, str]]:
    """(convolution, batch norm) where the one reads what the other gave; each runs once."""
    gave: dict[int, tuple[str, Tensor]] = {}  # with the tensor: its id is no other's while it is kept
    pairs: list[tuple[str, str]] = []
    runs: dict[str, int] = {}

    def note(name: str, part: nn.Module, inputs: Iterable[Any], output: Any) -> None:
        x = next(iter(inputs), None)
        runs[name] = runs.get(name, 0) + 1
        if isinstance(part, nn.Conv2d):
            gave[id(output)] = (name, output)
        elif id(x) in gave:
            pairs.append((gave[id(x)][0], name))

    hooks = [
        part.register_forward_hook(
            lambda part, args, named, output, name=name: note(name, part, (*args, *named.values()), output),
            with_kwargs=True,
        )
        for name, part in network.named_modules()
        if isinstance(part, nn.Conv2d | nn.BatchNorm2d)
    ]
    try:
        run(network)
    finally:
        for hook in hooks:
            hook.remove()
    return [(conv, norm) for conv, norm in pairs if runs[conv] == runs[norm] == 1 and _foldable(network, conv, norm)]


def _foldable(network: nn.Module, conv: str, norm: str) -> bool:
    """Whether both have their weights as they are: no parametrization, no statistics of the batch."""
    layer, old = network.get_submodule(conv), network.get_submodule(norm)
    plain = all(name in part._parameters for part in (layer, old) for name in ("weight", "bias"))
    return plain and old._buffers.get("running_var") is not None


def _fold(network: nn.Module, conv: str, norm: str) -> None:
    """Change the convolution, and leave of the batch norm what it has within: timm puts an activation there."""
    layer: Any = network.get_submodule(conv)
    old: Any = network.get_submodule(norm)
    layer.weight, layer.bias = fuse_conv_bn_weights(
        layer.weight, layer.bias, old.running_mean, old.running_var, old.eps, old.weight, old.bias
    )
    network.set_submodule(norm, nn.Sequential(OrderedDict(old.named_children())))
