"""Graphs of the weights of a vision transformer.

    heads            heads, and their composition scores: which head reads what an earlier one writes
    blocks.L.mlp     one MLP: channels of the stream that it reads, neurons, channels that it writes
    stream           channels of the stream, and all that reads or writes them: pixels, values of attention, neurons,
                     classes; queries and keys, which decide between which tokens, are left out

The channels of the stream are connected with nearly all neurons, so the last two are dense, and a partition is about
strong and weak weights. The graph of heads is the natural one.

Sources: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits (composition); Filan et al. 2103.03386.
"""

import re
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prisma.analysis.border import guarded
from prisma.analysis.modularity.graph import Graph, joined
from prisma.analysis.weights.composition import composition
from prisma.circuits import attentions, folded_in, neuron_weights, stream_weights
from prisma.errors import PrismaError
from prisma.numbers import exact
from prisma.plain import expect_plain
from prisma.vit import ViT

HEADS, STREAM = "heads", "stream"
_MLP = re.compile(r"blocks\.(\d{1,4})\.mlp")
_WHY = "a graph of weights"


@guarded
@torch.no_grad()
def vit_graph(model: ViT, part: str = HEADS) -> Graph:
    """The graph of a part of a vision transformer, by its weights; norms and layer scale are folded in.

    Args:
        part: heads, stream, or the MLP of a block, such as blocks.3.mlp.

    Raises:
        PrismaError: the model has no such part, or a part of it carries a hook or is another module.
    """
    if part == HEADS:
        return _heads(model)
    layers = range(model.config.n_layers)
    if part == STREAM:
        return _stream(model)
    match = _MLP.fullmatch(part)
    if match is None or int(match[1]) not in layers or not model.config.d_mlp:
        mlps = f", or blocks.0.mlp to blocks.{len(layers) - 1}.mlp" if layers and model.config.d_mlp else ""
        raise PrismaError(f"expected part to be {HEADS} or {STREAM}{mlps}; found {part!r}")
    layer = int(match[1])
    names = [f"{part} reads", f"blocks.{layer}.mlp.post", f"{part} writes"]
    read, written = _read_by_neurons(model, layer), neuron_weights(model, layer, dtype=torch.float64)
    weights = {(names[0], names[1]): _array(read), (names[1], names[2]): _array(written)}
    sizes = dict(zip(names, (len(read), len(written), written.shape[1]), strict=True))
    return joined(sizes, weights, metadata={"graph": part})


def _heads(model: ViT) -> Graph:
    """The mean of the composition scores by q, k and v; of QK-norm, where q and k are no function of weights, by v."""
    kinds = ("v",) if model.config.qk_norm else ("q", "k", "v")
    scores = composition(model, of=kinds, samples=1)
    mean = torch.stack([getattr(scores, kind) for kind in kinds]).double().mean(0)  # [layer, head, layer, head]
    names = [f"{name}.z" for name in scores.metadata["attentions"]]
    weights = {(names[a], names[b]): _array(mean[a, :, b]) for a in range(len(names)) for b in range(a + 1, len(names))}
    return joined(dict.fromkeys(names, mean.shape[1]), weights, metadata={"graph": HEADS, "by": list(kinds)})


def _stream(model: ViT) -> Graph:
    """The channels of the stream are one layer: what is written to a channel anywhere may be read from it later."""
    expect_plain(model, ["embed", "embed.patch", "readout", "readout.ln_final", "readout.head"], _WHY)
    width, layers = model.config.d_model, range(model.config.n_layers if model.config.d_mlp else 0)
    pixels = exact(model.embed.patch.weight).double().mT
    sizes = {"pixels": len(pixels), STREAM: width}
    weights: dict[tuple[str, str], Any] = {("pixels", STREAM): _array(pixels)}
    for layer, attention in attentions(model.config):
        name, w = f"blocks.{layer}.{attention}.v", stream_weights(model, layer, attention, dtype=torch.float64)
        read, written = w["W_V"].movedim(0, 1).flatten(1), w["W_O"].flatten(0, 1)
        sizes[name] = len(written)
        weights[STREAM, name] = _array(read) + _array(written).T
    for layer in layers:
        name = f"blocks.{layer}.mlp.post"
        written = neuron_weights(model, layer, dtype=torch.float64)
        sizes[name] = len(written)
        weights[STREAM, name] = _array(_read_by_neurons(model, layer)) + _array(written).T
    if model.config.n_classes and model.config.d_pooled == width:
        head = exact(model.readout.get_parameter("head.weight")).double().mT
        sizes["classes"] = head.shape[1]
        weights[STREAM, "classes"] = _array(folded_in(model.readout.ln_final, head))
    return joined(sizes, weights, metadata={"graph": STREAM})


def _read_by_neurons(model: ViT, layer: int) -> Tensor:
    """[channel, neuron]: the weights with which neurons read; of a gated MLP, those of both branches together."""
    mlp: Any = model.blocks[layer].get_submodule("mlp")
    expect_plain(model, [f"blocks.{layer}.{x}" for x in ("mlp.pre", "mlp.pre_linear", "ln2")], _WHY)
    norm: nn.Module | None = model.blocks[layer].get_submodule("ln2") if model.config.norm == "pre" else None
    branches = [branch for branch in (mlp.pre, mlp.pre_linear) if branch is not None]
    read = [folded_in(norm, exact(branch.weight).double().mT).abs() for branch in branches]
    return torch.stack(read).sum(0)


def _array(weight: Tensor) -> np.ndarray:
    """Absolute values, in float64, on the CPU."""
    return weight.detach().double().abs().cpu().numpy()
