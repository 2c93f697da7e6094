"""The tables of Vilas et al. 2310.18969 about what builds the class: changes by block, memories, probes, importance.

What is as published: `compat="vilas2023"` for memories; means over all tokens and images at once, which are those of
images because all have as many tokens; and the area under a removal curve, sum(accuracy) / (largest accuracy * patches)
over k = 1 to patches - 1. What is not: probes are one for all patches of a layer and not one for each place, and the
gradients of importance have no second softmax. Published numbers without a decimal place were read off figures by eye,
to about two points.

Shapes: B image, P patch, T token.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

import prisma
from prisma.analysis.class_space.linear_probes import Probes, train_probes
from prisma.analysis.fewer_tokens import taken

SITES: Mapping[str, str] = {"residual": "resid_post", "attention": "attn_out", "mlp": "mlp_out"}
RANKINGS = ("importance", "transformer attribution", "random")
FIGURES: Mapping[str, Mapping[str, float]] = {  # in percent; those of removal are in the authors' notebooks
    "vit_base_patch32_224": {
        "change, block 2": 55, "change, block 6": 77, "change, block 11": 90, "change, block 12": 80,
        "change, attention 6, class token": 92, "change, attention 11, class token": 97,
        "change, attention 12, class token": 92, "change, attention 6": 78, "change, attention 10": 41,
        "change, attention 11": 61, "change, attention 12": 51, "change, mlp 8, class token": 8,
        "change, mlp 11, class token": 72, "change, mlp 12, class token": 2, "change, mlp 7": 22,
        "change, mlp 11": 66, "change, mlp 12": 5,
        "agreement, attn 12": 18, "agreement, mlp 11": 33, "agreement, mlp 12": 14,
        "hits, attn 12": 44, "hits, mlp 11": 41, "hits, mlp 12": 2, "composed, mlp 11": 56, "composed, attn 12": 11,
        "right minus wrong, mlp 11": 41, "right minus wrong, attn 12": 5,
        "probe, residual 12": 51, "probe, attention 12": 58, "probe, mlp 12": 48,
        "projection, residual 12": 61, "projection, attention 12": 42, "projection, mlp 11": 26,
        "removal, importance, least first": 83.6, "removal, importance, most first": 41.3,
        "removal, transformer attribution, least first": 84.5, "removal, transformer attribution, most first": 39.3,
        "removal, random, least first": 71.6, "removal, random, most first": 71.6,
    },
    "vit_base_patch16_224": {
        "change, block 2": 51, "change, block 11": 89, "change, block 12": 95, "change, mlp 11, class token": 55,
        "change, mlp 11": 66, "agreement, attn 12": 20, "agreement, mlp 11": 39, "agreement, mlp 12": 15,
        "hits, attn 12": 57, "hits, mlp 11": 39, "hits, mlp 12": 1, "composed, mlp 11": 57, "composed, attn 12": 15,
        "right minus wrong, mlp 11": 4, "right minus wrong, attn 12": 0,
    },
    "vit_large_patch16_224": {
        "change, block 2": 54, "change, block 24": 99, "agreement, attn 24": 17, "agreement, mlp 22": 41,
        "hits, attn 24": 60, "hits, mlp 22": 41, "hits, mlp 24": 5, "composed, mlp 21": 73, "composed, attn 24": 23,
        "right minus wrong, mlp 22": 45, "right minus wrong, attn 24": 14,
    },
    "vit_base_patch16_224_miil": {
        "change, block 11": 96, "agreement, attn 12": 14, "agreement, mlp 11": 28, "hits, attn 12": 64,
        "hits, mlp 11": 53, "hits, mlp 12": 29, "composed, mlp 11": 53, "composed, attn 12": 22,
        "right minus wrong, mlp 11": 36, "right minus wrong, attn 12": 35,
    },
    "vit_base_patch16_rpn_224": {
        "change, block 10": 85, "change, block 12": 63, "agreement, attn 12": 11, "agreement, mlp 12": 13,
        "hits, attn 12": 12, "hits, mlp 12": 9, "composed, mlp 12": 4, "composed, attn 12": 1,
        "right minus wrong, mlp 12": 1, "right minus wrong, attn 12": 0,
    },
}  # fmt: skip


@dataclass
class Mean:
    """A mean over what comes in batches; NaN is left out."""

    total: float = 0.0
    count: float = 0.0

    def add(self, values: Tensor, weights: Tensor | None = None) -> None:
        weights = torch.ones_like(values) if weights is None else weights.to(values)
        there = ~values.isnan()
        self.total += (values * weights)[there].double().sum().item()
        self.count += weights[there].double().sum().item()

    @property
    def percent(self) -> float:
        return 100 * self.total / self.count if self.count else float("nan")


@dataclass
class Means:
    """Means by name, in the order in which they first came."""

    kept: dict[str, Mean] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Mean:
        return self.kept.setdefault(name, Mean())

    def percents(self) -> dict[str, float]:
        return {name: mean.percent for name, mean in self.kept.items()}


def add_change(means: Means, model: prisma.ViT, images: Tensor, labels: Tensor) -> None:
    """Table 1.4: at which share of tokens a block, attention or an MLP raises the class."""
    found = prisma.class_similarity_change(model, images, labels)
    for layer in range(model.config.n_layers):
        means[f"change, block {layer + 1}"].add(found.of("patches")[:, layer])
        for branch, rate in {"attention": "attn_alone", "mlp": "mlp_alone"}.items():
            for kind in ("patches", "class") if model.config.class_token else ("patches",):
                end = ", class token" if kind == "class" else ""
                means[f"change, {branch} {layer + 1}{end}"].add(found.of(kind, rate)[:, layer])


def add_memories(means: Means, model: prisma.ViT, images: Tensor, labels: Tensor) -> None:
    """Table 1.7: agreement, hits, composition of a layer, and the hits of right answers against those of wrong ones."""
    for site in ("attn", "mlp"):
        found = prisma.memories(model, images, labels, site=site, ln="none", compat="vilas2023")
        assert found.memory_of_class is not None and found.composed is not None and found.correct is not None
        for layer in range(model.config.n_layers):
            at, hits = f"{site} {layer + 1}", found.memory_of_class[:, layer]
            means[f"agreement, {at}"].add(found.agreement[layer])
            means[f"hits, {at}"].add(hits)
            means[f"composed, {at}"].add(found.composed[:, layer])
            means[f"hits of right answers, {at}"].add(hits[:, 0], found.correct)
            means[f"hits of wrong answers, {at}"].add(hits[:, 0], 1 - found.correct)


def probes_of(model: prisma.ViT, images: Tensor, labels: Tensor, batch: int) -> dict[str, Probes]:
    """A probe for each kind of layer, trained on other images."""
    return {name: train_probes(model, images, labels, site=site, batch=batch) for name, site in SITES.items()}


def add_probes(means: Means, model: prisma.ViT, probes: Mapping[str, Probes], images: Tensor, labels: Tensor) -> None:
    """Table 1.8: how often probes of patches answer the class, and how often the projection does."""
    for name, probe in probes.items():
        found = probe.read(model, images, labels)
        patches = found.metadata["kinds"].index("patches")
        for layer in range(model.config.n_layers):
            means[f"probe, {name} {layer + 1}"].add(found.probe[:, layer, patches])
            means[f"projection, {name} {layer + 1}"].add(found.projection[:, layer, patches])


@torch.no_grad()
def add_removal(means: Means, model: prisma.ViT, images: Tensor, labels: Tensor) -> None:
    """Table 1.9: the accuracy with k patches left, in three orders."""
    n, prefix = model.config.n_patches, model.config.n_prefix
    draw = torch.Generator().manual_seed(0)
    maps = {
        "importance": prisma.importance(model, images, labels).summed[:, prefix:],
        "transformer attribution": prisma.attribute(model, images, labels, "transformer_attribution").map[:, prefix:],
        "random": torch.rand(len(images), n, generator=draw),
    }
    x_BTM = model.embed(images)
    always = torch.arange(prefix, device=images.device).expand(len(images), -1)
    for name, map_BP in maps.items():
        order = map_BP.to(images.device).argsort(1, descending=True) + prefix
        for end, places in {"least first": order, "most first": order.flip(1)}.items():
            for k in range(1, n):
                kept = torch.cat([always, places[:, :k]], dim=1)
                answer = model.readout(model.encode(taken(x_BTM, kept))).argmax(-1)
                means[f"removal, {name}, {end}, {k}"].add((answer == labels).double())


def summary(percents: Mapping[str, float], patches: int) -> dict[str, float]:
    """The numbers of the tables: differences of hits, and areas under curves, in the place of what they are made of."""
    found: dict[str, float] = {}
    for name, value in percents.items():
        if name.startswith("hits of right answers, "):
            at = name.removeprefix("hits of right answers, ")
            found[f"right minus wrong, {at}"] = value - percents[f"hits of wrong answers, {at}"]
        elif name.startswith("removal, ") and name.endswith(", 1"):
            curve = [percents[f"{name.removesuffix(', 1')}, {k}"] for k in range(1, patches)]
            found[name.removesuffix(", 1")] = 100 * sum(curve) / (max(curve) * patches)
        elif not name.startswith(("removal, ", "hits of wrong")):
            found[name] = value
    return found
