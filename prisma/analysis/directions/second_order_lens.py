"""Second-order lens: what does a neuron write to the output through the attention of later layers?

A neuron n of layer l writes p_i w at token i, where p_i is its activation. Later heads read it there and carry it to
the tokens that the readout reads. With patterns A and the divisors of norms at their values for this image, that is

    phi_n = sum over later layers k, heads h, tokens i of  p_i (sum over read tokens q of r_q A[k,h,q,i]) / sigma[k,i]
            * w_n C diag(g_k) W_V W_O C diag(g) (head's matrix)

with r_q the share of a read token in the output, over the final norm's divisor. What passes through two heads, through
later MLPs, or directly, is not in it. Over images, phi_n varies mostly along one direction: `component`, the first
principal one, and `explained` is its share of the variance. A sparse sum of named directions names it (orthogonal
matching pursuit); `fit` is the cosine of that sum with it, and `random_fit` that with random directions.

Source: Gandelsman et al. 2406.04341. They take the images with the largest effects; here all images that are given.

Shapes: B image, T token, L later layer, H head, N neuron, M d_model, F feature, X text.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from prisma.analysis.border import guarded, record
from prisma.analysis.class_space.passes import chosen_layers
from prisma.analysis.directions.texts import Texts, output_of, random_texts
from prisma.analysis.result import Result
from prisma.batching import inputs_per_pass
from prisma.circuits import folded_out, neuron_weights, stream_weights
from prisma.errors import PrismaError
from prisma.layers import epsilon
from prisma.numbers import exact
from prisma.plain import expect_plain
from prisma.view.figures.plots import draw
from prisma.vit import ViT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SOME = 128
"""Neurons whose effects on all images are held at the same time."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SecondOrderLens(Result):
    """The direction that each neuron writes through later heads, how much, and the named directions nearest to it.

    A name counts where `explained` is large (the neuron has one direction), `size` is large (it has an effect) and
    `fit` is far above `random_fit`. `metadata["texts"]` has the names, `metadata["layers"]` the layers' numbers.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "size": ("layer", "neuron"),
        "explained": ("layer", "neuron"),
        "fit": ("layer", "neuron"),
        "random_fit": ("layer", "neuron"),
        "component": ("layer", "neuron", "feature"),
        "chosen": ("layer", "neuron", "place"),
        "weights": ("layer", "neuron", "place"),
    }

    size: Tensor  # root mean square length of the effect over images
    explained: Tensor  # share of the variance of the effect along `component`; 0 where it does not vary
    fit: Tensor  # cosine of the sparse sum with `component`
    random_fit: Tensor  # the same with random directions
    component: Tensor  # unit vectors, towards what the strongest image gets
    chosen: Tensor  # indices of texts, the first first
    weights: Tensor  # of the sparse sum

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        return {"layer": [f"layer {layer}" for layer in self.metadata["layers"]]}

    def neurons(self, texts: Sequence[str] | None = None, most: int = 10) -> list[tuple[int, int, list[str]]]:
        """(layer, neuron, names with the sign of their weight), of the neurons with the largest effects.

        Args:
            texts: other names, one for each direction.
        """
        names, found = self.metadata["texts"] if texts is None else texts, []
        for place in self.size.flatten().argsort(descending=True)[:most].tolist():
            layer, neuron = divmod(place, self.size.shape[1])
            pairs = zip(self.chosen[layer, neuron].tolist(), self.weights[layer, neuron].tolist(), strict=True)
            signed = [f"{'-' if weight < 0 else '+'}{names[i]}" for i, weight in pairs]
            found.append((self.metadata["layers"][layer], neuron, signed))
        return found

    def report(self, classes: Sequence[str] = ()) -> str:
        """A line for each of the ten neurons with the largest effects."""
        own = classes if self.metadata["own"] and len(classes) == len(self.metadata["texts"]) else None
        lines = []
        for layer, neuron, names in self.neurons(own):
            at = self.metadata["layers"].index(layer), neuron
            shares = (
                f"one direction {self.explained[at]:.2f}, fit {self.fit[at]:.2f}, at random {self.random_fit[at]:.2f}"
            )
            lines.append(f"layer {layer}, neuron {neuron}: {'; '.join(names)} ({shares})")
        return "\n".join(lines)

    def plot(self, array: str | None = None) -> "Figure":
        """By layer, the means of what the result says of its neurons, by their size; or a picture of another array."""
        if array is not None:
            return super().plot(array)
        weight = self.size / self.size.sum(1, keepdim=True).clamp(min=1e-30)
        means = torch.stack([(x * weight).sum(1) for x in (self.explained, self.fit, self.random_fit)])
        names = {"of": ["share along one direction", "fit of named directions", "fit of random directions"]}
        title = "second_order_lens: means over neurons, by size"
        return draw(means, ("of", "layer"), title=title, names={**names, **self.names})


@guarded
@torch.no_grad()
def second_order_lens(
    model: ViT,
    images: Tensor,
    directions: Tensor | None = None,
    *,
    names: Sequence[str] | None = None,
    space: str | None = None,
    texts: int = 4,
    layers: Iterable[int] | None = None,
    seed: int = 0,
    batch: int | None = None,
) -> SecondOrderLens:
    """What does each neuron write to the output through the heads of later layers, and which names are nearest to it?

    `component` is the direction of its effect, `chosen` and `weights` a sum of a few named directions near it.

    Args:
        images: two at least; many, of every kind that neurons may tell apart.
        directions, names, space: as in `text_span`.
        texts: how many named directions each neuron gets.
        layers: numbers of the layers, but the last, after which there is no head; by default all others.
        seed: of the random directions that the fit is compared with.
        batch: images in one pass; by default as many as fit in 256 MiB.

    Returns:
        `size`, `explained`, `fit` and `random_fit` [layer, neuron], `component` [layer, neuron, feature], `chosen` and
        `weights` [layer, neuron, place].

    Raises:
        PrismaError: a model without MLPs or with one layer; one with norms on the stream itself, on z or on neurons,
            with divided attention, or whose pooling is neither class nor mean; a single image; fewer directions than
            `texts`; no layer; as `Texts.of`; or a part that carries something of its own, such as a hook.

    Source: Gandelsman et al. 2406.04341.
    """
    _expect_form(model)
    chosen_of = chosen_layers(model.config, range(model.config.n_layers - 1) if layers is None else layers)
    named = Texts.of(model, directions, names, space)
    if model.config.n_layers - 1 in chosen_of:
        raise PrismaError(f"expected layers with later ones; found {model.config.n_layers - 1}, the last")
    if len(images) < 2 or not 1 <= texts <= len(named.names):
        raise PrismaError(
            f"expected two images or more, and texts from 1 to {len(named.names)}; found {len(images)} and {texts}"
        )
    own = named.directions.to(images.device)
    chance = random_texts(own, torch.Generator().manual_seed(seed))
    found: dict[str, list[Tensor]] = {}
    for layer in chosen_of:
        effects = SecondOrder(model, images, layer, named.space, batch)
        parts = [_described(effects.of(rows), own, chance, texts) for rows in effects.neurons.split(SOME)]
        for name in parts[0]:
            found.setdefault(name, []).append(torch.cat([part[name] for part in parts]))
    kind = exact(model.embed.prefix).dtype
    arrays = {name: torch.stack(x) for name, x in found.items()}
    settings = {"space": named.space, "layers": chosen_of, "texts": list(named.names), "own": named.own}
    return SecondOrderLens(
        metadata={"analysis": "second_order_lens", **settings, "images": len(images), "seed": seed},
        **{name: x.to(kind) if x.is_floating_point() else x for name, x in arrays.items()},
    )


class SecondOrder:
    """What the neurons of a layer write to the output through later heads, for each image."""

    def __init__(self, model: ViT, images: Tensor, layer: int, space: str, batch: int | None = None) -> None:
        c, later = model.config, range(layer + 1, model.config.n_layers)
        post, last = f"blocks.{layer}.mlp.post", f"blocks.{c.n_layers - 1}.resid_post"
        sites = [post, last, *(f"blocks.{k}.{site}" for k in later for site in ("attn.pattern", "attn.z", "resid_pre"))]
        memory = 8 * c.n_tokens * (c.d_mlp + len(later) * (c.n_heads * c.n_tokens + c.d_model))
        parts = []
        for some in images.split(inputs_per_pass(model, batch, memory=memory)):
            acts = record(model, some, sites)[1].map(Tensor.double)
            reach = torch.stack([_reach(model, acts, k, acts[last]) for k in later], dim=1)
            active = acts[post] / _written(model, layer, "mlp", acts[post])
            parts.append(torch.einsum("bkhi,bin->bnkh", reach, active).flatten(2))
        self.strength = torch.cat(parts)  # [image, neuron, later layer and head]
        wide = torch.float64
        maps = [self._map(model, k, space) for k in later]
        self.written = torch.einsum("nm,khmf->nkhf", neuron_weights(model, layer, dtype=wide), torch.stack(maps))
        self.neurons = torch.arange(self.strength.shape[1])

    def of(self, neurons: Tensor) -> Tensor:
        """The effects of some neurons [neuron, image, feature]."""
        return torch.einsum("bnk,nkf->nbf", self.strength[:, neurons], self.written[neurons].flatten(1, 2))

    @staticmethod
    def _map(model: ViT, layer: int, space: str) -> Tensor:
        """[head, d_model, feature]: from the stream at a token to the output, through each head of a layer."""
        w = stream_weights(model, layer, dtype=torch.float64)
        pooled = folded_out(model.readout.ln_final, w["W_V"] @ w["W_O"])
        return output_of(model, pooled, space, bias=False)


def _reach(model: ViT, acts: Mapping[str, Tensor], layer: int, last_BTM: Tensor) -> Tensor:
    """[image, head, token]: how much of what a layer's heads read at each token comes to the output."""
    c, pattern = model.config, acts[f"blocks.{layer}.attn.pattern"]
    read = slice(0, 1) if c.pool == "class" else slice(0 if c.pool_prefix else c.n_prefix, None)
    tokens = last_BTM[:, read]
    size = _divisor(model.readout.ln_final, tokens.mean(1, keepdim=True) if c.norm_pooled else tokens)
    share = torch.ones_like(tokens[..., :1]) / size / tokens.shape[1]
    share = share / _written(model, layer, "attn", acts[f"blocks.{layer}.attn.z"])[:, read]
    reach = torch.einsum("bqx,bhqi->bhi", share, pattern[:, :, read])
    norm = model.blocks[layer].get_submodule("ln1") if c.norm == "pre" else None
    return reach / _divisor(norm, acts[f"blocks.{layer}.resid_pre"])[:, None, :, 0]


def _written(model: ViT, layer: int, branch: str, inner: Tensor) -> Tensor:
    """What the norm of a branch's output divides by [image, token, 1], where the model has one; else 1."""
    if model.config.norm != "res_post":
        return torch.ones_like(inner.flatten(2)[..., :1])
    block: Any = model.blocks[layer]
    out = getattr(block, branch).write(inner.to(model.embed.prefix.dtype)).to(inner.dtype)
    return _divisor(block.get_submodule("ln1" if branch == "attn" else "ln2"), out)


def _divisor(norm: nn.Module | None, x: Tensor) -> Tensor:
    """What a norm divides by at each token [..., 1]; 1 where there is none."""
    if not isinstance(norm, nn.LayerNorm | nn.RMSNorm):
        return torch.ones_like(x[..., :1])
    centred = x - x.mean(-1, keepdim=True) if isinstance(norm, nn.LayerNorm) else x
    return (centred.square().mean(-1, keepdim=True) + epsilon(norm, x)).sqrt()


def _described(effects_NBF: Tensor, texts_XF: Tensor, chance_XF: Tensor, count: int) -> dict[str, Tensor]:
    """The arrays of a result for some neurons."""
    moved = effects_NBF - effects_NBF.mean(1, keepdim=True)
    _, size, directions = torch.linalg.svd(moved, full_matrices=False)
    component = directions[:, 0]
    along = (effects_NBF @ component[..., None])[..., 0]
    component = torch.where(along.gather(1, along.abs().argmax(1, keepdim=True)) < 0, -component, component)
    total = size.square().sum(1)
    chosen, weights, fit = sparse_sum(component, texts_XF, count)
    return {
        "size": effects_NBF.square().sum(-1).mean(1).sqrt(),
        "explained": torch.where(total > 0, size[:, 0].square() / total.clamp(min=1e-300), 0.0),
        "component": component,
        "chosen": chosen,
        "weights": weights,
        "fit": fit,
        "random_fit": sparse_sum(component, chance_XF, count)[2],
    }


def sparse_sum(targets_NF: Tensor, texts_XF: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Orthogonal matching pursuit: each target as a sum of a few unit directions.

    Returns:
        the chosen directions [target, place], their weights [target, place], and the cosine of the sum with the target.
    """
    left, chosen = targets_NF, torch.zeros(len(targets_NF), 0, dtype=torch.long, device=targets_NF.device)
    weights = targets_NF.new_zeros(len(targets_NF), 0)
    for _ in range(count):
        found = (left @ texts_XF.mT).abs().scatter(1, chosen, -1.0)
        chosen = torch.cat([chosen, found.argmax(1, keepdim=True)], dim=1)
        rows = texts_XF[chosen]  # [target, place, feature]
        weights = (targets_NF[:, None] @ torch.linalg.pinv(rows))[:, 0]
        left = targets_NF - (weights[:, None] @ rows)[:, 0]
    fit = torch.cosine_similarity(targets_NF - left, targets_NF, dim=1)
    return chosen, weights, fit


def _expect_form(model: ViT) -> None:
    """Raises PrismaError: a model for whose form the formula is not made, or a part with something of its own."""
    c = model.config
    wrong: dict[str, Any] = {
        "d_mlp": not c.d_mlp,
        "n_layers": c.n_layers < 2,
        "norm": c.norm == "post",
        "norm_z": c.norm_z,
        "norm_post": c.norm_post,
        "attention": c.attention != "joint",
        "pool": c.pool not in ("class", "mean"),
    }
    for name in (name for name, is_wrong in wrong.items() if is_wrong):
        raise PrismaError(
            "expected a model with MLPs, two layers or more, no norms on the stream or within a branch, joint "
            f"attention, and the class token or a mean as its pooling; found {name}={getattr(c, name)!r}"
        )
    norms = [f"blocks.{layer}.{norm}" for layer in range(c.n_layers) for norm in ("ln1", "ln2")]
    expect_plain(model, ["", "readout", "readout.ln_final", *norms], "the lens of a neuron through later heads")
