"""Class values: which classes a head or neuron writes, which classes a head reads, and which pixels.

The readout's matrix E [class, d_model] has a direction of the residual stream for each class. What is written to the
stream, projected on E, is the logits that it raises:

    neurons  V = E W_out^T     heads  V = E W_O^T     reads of a head  E (W_V W_O)^T

each [class, ...]. *Class-value agreement* is how well the best of a layer's vectors v_m fits a class:
max over m of cos(E_c, v_m); compare it with that of `random_control`.

Sources: Vilas et al. 2310.18969 (class-embedding space; they use ln="none"); Geva et al. 2012.14913 (key-value
memories).

Shapes: L layer, H head, M d_model, D d_head, N d_mlp, C class.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from prisma.analysis.border import guarded
from prisma.analysis.class_space.class_embeddings import class_embeddings
from prisma.analysis.class_space.passes import chosen_layers
from prisma.analysis.result import Result
from prisma.circuits import expect_ln, folded_in, neuron_weights, stream_weights
from prisma.errors import PrismaError
from prisma.numbers import exact
from prisma.plain import expect_plain
from prisma.vit import ViT, build


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassValues(Result):
    """Which classes each unit of a head and each neuron writes, by the weights alone.

    A number in `heads` or `neurons` is the logit that one unit of activation adds to a class: positive raises it,
    negative lowers it. `agreement` near 1 means that some vector of the layer points exactly along the class; compare
    with `random_control` to see what chance is. `metadata["layers"]` has the numbers of the layers.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "agreement_heads": ("layer", "class"),
        "agreement_neurons": ("layer", "class"),
        "heads": ("layer", "class", "head", "d_head"),
        "neurons": ("layer", "class", "neuron"),
    }

    heads: Tensor  # what each unit of z adds to the class's logit, but for norms' divisors
    neurons: Tensor | None = None  # the same for each unit of mlp.post
    agreement_heads: Tensor  # class-value agreement, of the rows of W_O
    agreement_neurons: Tensor | None = None

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        return {"layer": [f"layer {layer}" for layer in self.metadata["layers"]]}


@guarded
@torch.no_grad()
def class_values(
    model: ViT, *, attention: str = "attn", layers: Iterable[int] | None = None, ln: str = "folded"
) -> ClassValues:
    """Which classes do heads and neurons write, by the weights alone?

    Each number is the logit that one unit of a head's z, or of a neuron's activation, adds to a class: positive raises
    the class, negative lowers it, 0 does not touch it. `agreement_heads` and `agreement_neurons` say how well a layer's
    best vector fits each class, as a cosine: compare with `class_values(random_control(model))`.

    Args:
        attention: "attn", or "time" in divided attention.
        layers: numbers of the layers, each once; by default all. A layer of ViT-B/16 with 1000 classes takes 15 MB.
        ln: as in `class_embeddings`, `stream_weights` and `neuron_weights`; layer scale is always included.

    Returns:
        `heads` [layer, class, head, d_head], `neurons` [layer, class, neuron], in logits per unit of activation;
        `agreement_heads` and `agreement_neurons` [layer, class], cosines.

    Raises:
        PrismaError: as `class_embeddings`, `stream_weights` and `neuron_weights`, or there is no layer.

    Source: Vilas et al. 2310.18969.
    """
    chosen = chosen_layers(model.config, layers)
    found: dict[str, list[Tensor]] = {}
    for layer in chosen:
        for name, branch in {"heads": attention, **({"neurons": "mlp"} if model.config.d_mlp else {})}.items():
            values, agreement = values_of(model, layer, branch, ln=ln)
            by_head = values.unflatten(1, (-1, model.config.d_head)) if name == "heads" else values
            found.setdefault(name, []).append(by_head)
            found.setdefault(f"agreement_{name}", []).append(agreement)
    return ClassValues(
        metadata={"analysis": "class_values", "attention": attention, "layers": chosen, "ln": ln},
        **{name: torch.stack(parts).to(exact(model.embed.patch.weight).dtype) for name, parts in found.items()},
    )


def values_of(model: ViT, layer: int, branch: str, *, ln: str = "folded") -> tuple[Tensor, Tensor]:
    """The logit that each memory of a branch adds to each class [class, memory], and the class-value agreement [class].

    A memory is a neuron, or a unit of a head's z (heads one after the other). Computed in float64, because what all
    weights have in common may be far larger than what a norm leaves of them.

    Args:
        branch: "attn", "time" or "mlp".

    Raises:
        PrismaError: as `class_embeddings`, `stream_weights` and `neuron_weights`.
    """
    wide = torch.float64
    if branch == "mlp":
        value_NM = neuron_weights(model, layer, ln=ln, dtype=wide)
    else:
        value_NM = stream_weights(model, layer, branch, ln=ln, dtype=wide)["W_O"].flatten(0, 1)
    embedding_CM = class_embeddings(model, (layer, "mlp" if branch == "mlp" else "attn"), ln=ln, dtype=wide)
    unit_CM, unit_NM = (torch.nn.functional.normalize(x, dim=-1) for x in (embedding_CM, value_NM))
    return embedding_CM @ value_NM.mT, (unit_CM @ unit_NM.mT).amax(1)


@guarded
@torch.no_grad()
def class_reads(model: ViT, layer: int, attention: str = "attn", *, ln: str = "folded") -> Tensor:
    """Which direction must a token have for a head to raise a class's logit? E (W_V W_O)^T [head, class, d_model].

    The dot product with a row says how much attending to a token raises (or, negative, lowers) the class. Times E^T it
    is the head's OV circuit from class to class: a head that copies classes has a large positive diagonal.

    Raises:
        PrismaError: as `class_embeddings` and `stream_weights`.
    """
    wide = torch.float64
    w = stream_weights(model, layer, attention, ln=ln, dtype=wide)
    reads_HCM = class_embeddings(model, (layer, attention), ln=ln, dtype=wide) @ w["W_O"].mT @ w["W_V"].mT
    return reads_HCM.to(exact(model.embed.patch.weight).dtype)


@guarded
def to_pixels(model: ViT, directions: Tensor, *, ln: str = "folded") -> Tensor:
    """Which patch of pixels does a direction of the embedding respond to? [..., channel, (frame,) height, width].

    Its dot product with a patch of pixels is what that patch adds along the direction, but for biases and norms'
    divisors: bright pixels of the picture raise it, dark (negative) ones lower it.

    Args:
        directions: [..., d_model].
        ln: as in `class_embeddings`.

    Raises:
        PrismaError: directions of another width, or `ln` has another value.
    """
    expect_ln(ln)
    c, embed = model.config, model.embed
    if directions.shape[-1] != c.d_model:
        raise PrismaError(f"expected directions [..., {c.d_model}]; found {list(directions.shape)}")
    expect_plain(model, [f"embed{part}" for part in ("", ".patch", ".ln_patch", ".ln_pre")], "the weights of pixels")
    reads = exact(directions)[..., None]
    for norm in (embed.ln_pre, embed.ln_patch) if ln == "folded" else ():
        reads = folded_in(norm, reads)
    frames = (c.tubelet,) if c.frames > 1 else ()
    return (reads[..., 0] @ exact(embed.patch.weight)).unflatten(-1, (c.channels, *frames, *c.patch_sides))


def random_control(model: ViT, seed: int = 0) -> ViT:
    """A model with the same architecture, device and precision, and random weights: what chance looks like.

    Compare any analysis of weights with the same analysis of this model. torch's random generator is left unchanged.
    """
    like = next(model.parameters())
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return build(model.config).to(like).eval()
