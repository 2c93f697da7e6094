"""The options of analyses: what each means, its type, and how its text on the command line is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prisma.analysis.attribution.games import ABSENT
from prisma.analysis.attribution.importance import OF
from prisma.analysis.attribution.map_curves import CURVES
from prisma.analysis.attribution.methods import METHODS
from prisma.analysis.circuits.attribution_passes import RULES
from prisma.analysis.circuits.path_patching import MLPS
from prisma.analysis.class_space.perturbed import COMPAT
from prisma.analysis.directions.texts import SPACES
from prisma.analysis.modularity.data_graphs import GRAPHS
from prisma.analysis.modularity.partition import PARTITIONS
from prisma.analysis.modularity.shuffles import SHUFFLES
from prisma.analysis.patching.corruptions import CORRUPTIONS
from prisma.analysis.top_images import POOLS
from prisma.errors import PrismaError, nearest
from prisma.fields import parse
from prisma.metrics import NAMED


@dataclass(frozen=True)
class Option:
    """An option that one or more analyses take."""

    help: str
    kind: type = str
    choices: tuple[str, ...] = ()  # the words that it may be; () if they depend on the model or the analysis
    file: bool = False  # whether it is the path of a file, on whose content results depend


OPTIONS: Mapping[str, Option] = {
    "metric": Option(
        "the number computed from the logits: logit, probability or logit_diff (to the best other class)",
        choices=tuple(NAMED),
    ),
    "target": Option("the class that the metric is computed for, by number; default: the predicted class", int),
    "neuron": Option(
        "a number inside the model instead of the metric: SITE:INDEX, such as blocks.3.mlp.post:17, at the first "
        "token; after commas head=2, token=5, or token=mean"
    ),
    "corrupt": Option(
        "how the corrupt image of each pair is made: other, swap, noise, blur, mean, object or inpaint",
        choices=tuple(CORRUPTIONS),
    ),
    "sigma": Option("strength of the corruption: standard deviation of the noise, or of the blur in pixels", float),
    "steps": Option("number of gradient evaluations: 1, or about 5 for integrated gradients", int),
    "rules": Option(
        "what is passed back: gradient, or relevance by cp_lrp (RelP: patterns held constant) or attn_lrp",
        choices=RULES,
    ),
    "grad_drop": Option("average over gradients with one layer left out each (GradDrop): true or false", bool),
    "seed": Option("random seed", int),
    "into": Option(
        "the run that is patched: clean or corrupt",
        choices=("clean", "corrupt"),
    ),
    "mlps": Option("the MLPs between a sender and a receiver: frozen, or recomputed as in Wang et al.", choices=MLPS),
    "site": Option(
        "the activation to patch or read: attn.z, attn.pattern, resid_pre, resid_post, attn_out, mlp_out, ..."
    ),
    "units": Option("numbers of the features of the site, separated by commas; default: all"),
    "where": Option("the tokens at which the site is read: class, registers, patches, all, or a position"),
    "pool": Option("the number of an image: the mean of the unit over these tokens, or the max", choices=POOLS),
    "axis": Option("patch each index along this axis separately: head, token, component, ..."),
    "by": Option(
        "what replaces the ablated activation: zero, mean or resample",
        choices=("zero", "mean", "resample"),
    ),
    "window": Option("number of neighbouring layers that are restored together", int),
    "sever": Option("the branch that is held at its corrupt value: mlp_out or attn_out"),
    "noise": Option("size of the noise on the object, in standard deviations of the embeddings", float),
    "samples": Option("runs, or samples of noise, per image", int),
    "method": Option("the method of attribution", choices=tuple(METHODS)),
    "methods": Option("names of methods of attribution, separated by commas; default: all"),
    "absent": Option("what an absent patch is: dropped (left out) or baseline (the mean colour)", choices=ABSENT),
    "segments": Option("the number of rectangles that are removed as one; default: each patch alone", int),
    "tolerance": Option("the largest completeness error, as a share of what a map moves", float),
    "curve": Option("whether patches are removed or put in: deletion or insertion", choices=CURVES),
    "points": Option("the number of points of a curve; default: one for each patch", int),
    "orders": Option("the number of random orders that a curve is compared with", int),
    "of": Option("what the gradient is of: cross_entropy or logit", choices=OF),
    "norms": Option(
        "how layer norms are treated: frozen (scales held constant) or integrated",
        choices=("frozen", "integrated"),
    ),
    "sources": Option("also split each head's contribution by the token it reads from: true or false", bool),
    "tokens": Option("also every token alone; of circuits: an edge at one token is one edge: true or false", bool),
    "draws": Option("the number of random circuits of each size, or of classifiers with other random images", int),
    "heads": Option(
        "how the attention of a layer's heads is combined: mean, max or min",
        choices=("mean", "max", "min"),
    ),
    "residual": Option("weight of the residual connection against attention, from 0 to 1", float),
    "scores": Option("names of head scores, separated by commas; default: every score that can be computed"),
    "attention": Option(
        "the attention to analyse: attn, time or pool",
        choices=("attn", "time", "pool"),
    ),
    "queries": Option(
        "the query tokens to average over: all, class, registers or patches",
        choices=("all", "class", "registers", "patches"),
    ),
    "measure": Option(
        "the similarity measure: jensen_shannon, cosine or cka",
        choices=("jensen_shannon", "cosine", "cka"),
    ),
    "norm": Option(
        "how the readout's norm is treated: final, frozen, folded or none",
        choices=("final", "frozen", "folded", "none"),
    ),
    "bias": Option("add what no vector changes, such as the head's bias: true or false", bool),
    "control": Option("also of the same model with random weights: true or false", bool),
    "kind": Option(
        "what is cut: self_only (patches attend to themselves alone) or no_cls (not to the class token)",
        choices=("self_only", "no_cls"),
    ),
    "renormalise": Option("whether attention without the class token still sums to one: true or false", bool),
    "with_class_token": Option("whether rates count the class token too: true or false", bool),
    "remove": Option("what is removed: context or class_label (the object)", choices=("context", "class_label")),
    "how": Option(
        "how tokens are removed: index (a shorter sequence) or attention (nothing attends to them)",
        choices=("index", "attention"),
    ),
    "layer": Option("the kind of layer whose memories are read: mlp or attn", choices=("mlp", "attn")),
    "layers": Option("numbers of the layers, separated by commas; default: all"),
    "compat": Option("vilas2023: compute the numbers as published, where they are to be reproduced", choices=(COMPAT,)),
    "top": Option("number of memories that count as active, or as a class's own", int),
    "ln": Option("norms around the values: folded into them, or none", choices=("folded", "none")),
    "alpha": Option("how much a ridge regression penalises large weights", float),
    "training": Option("number of training images", int),
    "graph": Option("what the edges of a graph are: weights, activations or gradients", choices=GRAPHS),
    "part": Option("of a graph of weights: heads, stream, or an MLP such as blocks.3.mlp"),
    "k": Option("the number of communities; default: it is chosen", int),
    "null": Option("the number of shuffled graphs that a score is compared with", int),
    "partition": Option("how communities are found: spectral, louvain or greedy", choices=tuple(PARTITIONS)),
    "shuffle": Option("where shuffled weights may go: all or nonzero; default: nonzero if pruned", choices=SHUFFLES),
    "stage": Option("the stage of the residual stream: s is after block s - 1; default: the last", int),
    "neurons": Option("the number of neurons that are moved to the added registers", int),
    "registers": Option("the number of empty tokens that are added", int),
    "exchange": Option("a factor of the task's images, such as hue: what is exchanged between them"),
    "concept": Option("the images of the task that show it: FACTOR:VALUE, such as hue:red, or label:3"),
    "head": Option("which head, where the site has heads", int),
    "dim": Option("number of directions of a subspace", int),
    "frequencies": Option("key frequencies, separated by commas; default: those with 90 % of the logits' power"),
    "doses": Option("factors of the direction, separated by commas"),
    "controls": Option("number of random directions, or of sets of them, to compare with", int),
    "space": Option("the space of the output: logits, or pooled, what the head reads", choices=SPACES),
    "texts": Option("number of named directions of each neuron", int),
    "words": Option("a file of words to name units by, one on each line", file=True),
    "clip": Option("the CLIP that looks at the images: open_clip/..., hf/... or a folder, as for prisma.load"),
    "factor": Option("a patch is an artifact if its norm is above this multiple of the median norm", float),
}
"""Name -> option, for every analysis that takes it."""


def read_options(given: Mapping[str, str], defaults: Mapping[str, Any], analysis: str) -> dict[str, Any]:
    """The options of an analysis: the given ones, parsed from text, and the defaults of the others.

    Args:
        analysis: the name of the analysis, for error messages.

    Raises:
        PrismaError: an option that the analysis does not take (the nearest names are given), or text that
            cannot be read as a value of the option's type.
    """
    for name in given:
        if name not in defaults:
            raise PrismaError(
                f"expected an option of {analysis}; found {name!r}; the nearest options: {nearest(name, defaults)}"
            )
    return {**defaults, **{name: _read(name, text) for name, text in given.items()}}


def _read(name: str, text: str) -> Any:
    """The value of an option. Words with dashes are taken for those with underscores."""
    option = OPTIONS[name]
    word = text.replace("-", "_")
    if option.choices and word not in option.choices:
        raise PrismaError(f"expected {name} to be {', '.join(option.choices)}; found {text!r}")
    return word if option.choices else parse(name, text, option.kind)
