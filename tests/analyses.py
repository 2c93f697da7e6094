"""Every public analysis as a call on a model and some images, for what must hold of all of them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import prisma
from prisma import LogitDiff, ViT
from prisma.analysis.attribution.map_checks import map_sanity, map_sensitivity
from prisma.analysis.circuits.attribution_patching import attribute_nodes_and_edges
from prisma.analysis.circuits.graph import Graph
from prisma.analysis.class_space import (
    attention_perturbation,
    class_projection,
    class_similarity_change,
    linear_probes,
    memories,
    token_perturbation,
)
from prisma.analysis.class_space.class_embeddings import class_embeddings
from prisma.analysis.class_space.class_values import class_reads, to_pixels
from prisma.analysis.modularity import cluster_lesions
from prisma.analysis.modularity.modularity import Modularity
from prisma.analysis.patching.causal_tracing import embedding_scale
from prisma.analysis.top_images import top_images

METRIC = LogitDiff(0, 1)


def _pairs(analysis: Callable[..., Any], **options: Any) -> Callable[[ViT, Tensor], Any]:
    return lambda model, images: analysis(model, images, images.roll(1, 0).flip(-1), metric=METRIC, **options)


def _coverage(model: ViT, images: Tensor) -> Tensor:
    """The object is the first patch, wholly, and half of the second."""
    coverage = torch.zeros(len(images), *model.config.grid[1:])
    coverage[:, 0, :2] = torch.tensor([1.0, 0.25])
    return coverage


def _edge_scores(model: ViT, images: Tensor) -> Tensor:
    """Of any edges: a ranking that does not depend on the precision of the model."""
    edges = Graph(model.config).edges
    return torch.randn(edges.shape, generator=torch.Generator().manual_seed(0)).to(images.device)


def _map(model: ViT, images: Tensor) -> Tensor:
    return torch.linspace(0, 1, model.config.n_patches).expand(len(images), -1)


def _explained(model: ViT, images: Tensor) -> Tensor:
    return prisma.attribute(model, images, METRIC, "attn_lrp").patches.flatten(1)


def _communities(model: ViT) -> Modularity:
    found = prisma.modularity(prisma.weight_graph(model, "stream"), 2, 2)
    return replace(found, labels=torch.arange(len(found.labels)) % 2)


def _labels(images: Tensor) -> Tensor:
    return torch.arange(len(images)) % 3


def _triples(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return images, images.roll(1, 0), _labels(images)


def _all_sums(model: ViT) -> Tensor:
    """All pairs of numbers below the number of classes."""
    return torch.cartesian_prod(*[torch.arange(model.config.n_classes)] * 2)


def _of_all_sums(model: ViT, images: Tensor) -> Tensor:
    return images[torch.arange(len(_all_sums(model))) % len(images)]


def _lens(model: ViT, images: Tensor) -> prisma.Result:
    return prisma.train_tuned_lens(model, images, steps=2, batch=2)


OF_IMAGES: Mapping[str, Callable[[ViT, Tensor], Any]] = {
    "ablation": lambda model, images: prisma.ablation(model, images, "attn.z", METRIC, by="mean"),
    "activation_patching": _pairs(prisma.activation_patching, site="attn.z"),
    "artifacts": prisma.artifacts,
    "attention_flow": prisma.attention_flow,
    "attention_perturbation": lambda model, images: attention_perturbation(model, images, _labels(images)),
    "attribute": lambda model, images: prisma.attribute(model, images, METRIC, samples=8, tolerance=1.0),
    "attribute attn_lrp": lambda model, images: prisma.attribute(model, images, METRIC, "attn_lrp"),
    "attribute kernel_shap": lambda model, images: prisma.attribute(model, images, METRIC, "kernel_shap", samples=20),
    "compare_maps": lambda model, images: prisma.compare_maps(model, images, METRIC, methods=["occlusion"], points=3),
    "atp_star": _pairs(prisma.atp_star, grad_drop=False),
    "atp_star grad_drop": _pairs(prisma.atp_star, grad_drop=True),
    "attribution_patching": _pairs(prisma.attribution_patching),
    "attribute_nodes_and_edges": _pairs(attribute_nodes_and_edges),
    "cluster_lesions": lambda model, images: cluster_lesions(
        model, images, _labels(images), _communities(model), draws=2
    ),
    "causal_tracing": lambda model, images: prisma.causal_tracing(
        model, images, _coverage(model, images), metric=METRIC, samples=2
    ),
    "check_circuit": _pairs(prisma.check_circuit, edges=[("embed", "a0.h1.v"), ("a0.h1", "logits")], steps=1),
    "circuit_discovery": _pairs(prisma.circuit_discovery, n=5, tolerance=-1, sizes=[2, 5], steps=1),
    "circuit_evaluation": lambda model, images: _pairs(
        prisma.circuit_evaluation, scores=_edge_scores(model, images), draws=1
    )(model, images),
    "class_identifiability": lambda model, images: prisma.class_identifiability(model, images, _labels(images)),
    "class_projection": lambda model, images: class_projection(model, images, site="attn_out"),
    "class_projection frozen": lambda model, images: class_projection(model, images, norm="frozen"),
    "class_maps": lambda model, images: prisma.class_maps(model, images, _labels(images), value="logit_diff"),
    "class_similarity_change": lambda model, images: class_similarity_change(model, images, _labels(images)),
    "direct_logit_attribution": lambda model, images: prisma.direct_logit_attribution(model, images, METRIC),
    "direct_logit_attribution integrated": lambda model, images: prisma.direct_logit_attribution(
        model, images, METRIC, norms="integrated"
    ),
    "edge_attribution": _pairs(prisma.edge_attribution),
    "embedding_scale": lambda model, images: torch.tensor(embedding_scale(model, images, batch=2)),
    "fourier_components": lambda model, images: prisma.fourier_components(
        model, _of_all_sums(model, images), _all_sums(model), frequencies=[1]
    ),
    "head_graph": _pairs(prisma.head_graph),
    "head_scores": lambda model, images: prisma.head_scores(model, images, masks=_coverage(model, images)),
    "head_similarity": prisma.head_similarity,
    "head_similarity cosine": lambda model, images: prisma.head_similarity(model, images, measure="cosine"),
    "head_similarity cka": lambda model, images: prisma.head_similarity(model, images, measure="cka"),
    "importance": lambda model, images: prisma.importance(model, images, 1),
    "interchange": lambda model, images: prisma.interchange(
        model, *_triples(images), *_triples(images), "blocks.0.resid_post", steps=2
    ),
    "steering": lambda model, images: prisma.steering(
        model, images, METRIC, torch.ones(model.config.d_model), "blocks.0.resid_post", controls=1
    ),
    "concept_vectors": lambda model, images: prisma.concept_vectors(
        model,
        images,
        METRIC,
        images.repeat(4, 1, 1, 1),
        images.flip(-1).repeat(8, 1, 1, 1),
        "blocks.0.resid_pre",
        where="patches",
        draws=2,
    ),
    "second_order_lens": lambda model, images: prisma.second_order_lens(model, images, texts=2),
    "text_span": lambda model, images: prisma.text_span(model, images, steps=1),
    "lens_segmentation": lambda model, images: prisma.lens_segmentation(
        model, images, _coverage(model, images), _labels(images)
    ),
    "linear_probes": lambda model, images: linear_probes(
        model, images.repeat(2, 1, 1, 1), _labels(images).repeat(2), images, _labels(images)
    ),
    "logit_lens": prisma.logit_lens,
    "memories": lambda model, images: memories(model, images, _labels(images), top=1),
    "map_curves": lambda model, images: prisma.map_curves(model, images, _map(model, images), METRIC, points=3),
    "map_sanity": lambda model, images: map_sanity(model, images, _explained),
    "map_sensitivity": lambda model, images: map_sensitivity(model, images, _explained, draws=1),
    "norm_weighted_attention": prisma.norm_weighted_attention,
    "patch_sets": _pairs(prisma.patch_sets, sets={"one": {"blocks.0.attn.z": {"head": 1}}}),
    "path_patching": _pairs(prisma.path_patching),
    "register_neurons": lambda model, images: prisma.register_neurons(model, images, factor=0.9),
    "relevance_patching": _pairs(prisma.relevance_patching),
    "relevance": lambda model, images: prisma.relevance(model, images, METRIC),
    "rollout": prisma.rollout,
    "test_time_registers": lambda model, images: prisma.test_time_registers(
        model, images, prisma.register_neurons(model, images, factor=0.9), n=2
    ),
    "token_perturbation": lambda model, images: token_perturbation(
        model, images, _labels(images), _coverage(model, images), remove="class_label"
    ),
    "top_images": lambda model, images: top_images(model, images, "embed", k=2),
    "train_tuned_lens": _lens,
    "tuned_lens": lambda model, images: prisma.tuned_lens(model, _lens(model, images), images),
}
"""Name of the analysis, and perhaps of an option -> the analysis of these images."""

OF_WEIGHTS: Mapping[str, Callable[[ViT], Any]] = {
    "class_values": prisma.class_values,
    "class_embeddings": class_embeddings,
    "class_reads": lambda model: class_reads(model, 0),
    "composition": lambda model: prisma.composition(model, samples=2),
    "modularity": lambda model: prisma.modularity(prisma.weight_graph(model), 2, 3),
    "head_directions": prisma.head_directions,
    "head_directions qk": lambda model: prisma.head_directions(model, "qk"),
    "memories of weights": lambda model: memories(model, site="attn"),
    "to_pixels": lambda model: to_pixels(model, torch.ones(model.config.d_model).to(model.embed.patch.weight)),
}
"""The same, of the weights alone."""


def arrays_of(found: Any) -> dict[str, Tensor]:
    """All numbers of what an analysis returned, by name."""
    if isinstance(found, tuple):
        return {f"{i}.{name}": x for i, part in enumerate(found) for name, x in arrays_of(part).items()}
    return {"result": found.detach()} if isinstance(found, Tensor) else found.arrays
