"""Prisma: the laboratory for seeing how vision transformers think.

The public names load on first use, so that `import prisma` and `prisma --help` cost nothing that is not asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prisma.analysis.attention.artifacts import artifacts
    from prisma.analysis.attention.attention_flow import attention_flow
    from prisma.analysis.attention.head_scores import head_scores
    from prisma.analysis.attention.head_similarity import head_similarity
    from prisma.analysis.attention.norm_weighted_attention import norm_weighted_attention
    from prisma.analysis.attention.register_neurons import register_neurons
    from prisma.analysis.attention.relevance import relevance
    from prisma.analysis.attention.rollout import rollout
    from prisma.analysis.attention.test_time_registers import move_to_registers, test_time_registers, with_registers
    from prisma.analysis.attribution.attribute import attribute, attribute_network
    from prisma.analysis.attribution.compare_maps import compare_maps
    from prisma.analysis.attribution.direct_logit_attribution import direct_logit_attribution
    from prisma.analysis.attribution.importance import importance
    from prisma.analysis.attribution.map_curves import map_curves
    from prisma.analysis.attribution.questions import Neuron
    from prisma.analysis.circuits.atp_star import atp_star
    from prisma.analysis.circuits.attribution_patching import attribution_patching
    from prisma.analysis.circuits.circuit_discovery import check_circuit, circuit_discovery
    from prisma.analysis.circuits.circuit_evaluation import circuit_evaluation, edge_scores
    from prisma.analysis.circuits.edge_attribution import edge_attribution
    from prisma.analysis.circuits.head_graph import head_graph
    from prisma.analysis.circuits.path_patching import path_patching
    from prisma.analysis.circuits.relevance_patching import relevance_patching
    from prisma.analysis.class_space.attention_perturbation import attention_perturbation
    from prisma.analysis.class_space.class_identifiability import class_identifiability
    from prisma.analysis.class_space.class_projection import class_projection
    from prisma.analysis.class_space.class_similarity_change import class_similarity_change
    from prisma.analysis.class_space.class_values import class_values
    from prisma.analysis.class_space.linear_probes import linear_probes
    from prisma.analysis.class_space.memories import memories
    from prisma.analysis.class_space.token_perturbation import token_perturbation
    from prisma.analysis.clip_dissect import clip_dissect, similarity_of
    from prisma.analysis.directions.concept_vectors import concept_vectors
    from prisma.analysis.directions.fourier_components import fourier_components
    from prisma.analysis.directions.interchange import interchange
    from prisma.analysis.directions.second_order_lens import second_order_lens
    from prisma.analysis.directions.steering import mean_difference, steering
    from prisma.analysis.directions.text_span import text_span
    from prisma.analysis.lens.class_maps import class_maps
    from prisma.analysis.lens.logit_lens import logit_lens
    from prisma.analysis.lens.segmentation import lens_segmentation, segmentation
    from prisma.analysis.lens.tuned_lens import read_tuned_lens, train_tuned_lens, tuned_lens
    from prisma.analysis.modularity.modularity import modularity
    from prisma.analysis.modularity.weight_graph import weight_graph
    from prisma.analysis.patching.ablation import ablation
    from prisma.analysis.patching.activation_patching import activation_patching, patch, patch_sets, sweep
    from prisma.analysis.patching.causal_tracing import causal_tracing
    from prisma.analysis.result import Result
    from prisma.analysis.statistics import bootstrap_interval
    from prisma.analysis.top_images import top_images
    from prisma.analysis.weights.composition import composition
    from prisma.analysis.weights.head_directions import head_directions
    from prisma.config import TextConfig, ViTConfig
    from prisma.edits import Add, Mean, Resample, Scale, Set, Zero
    from prisma.errors import PrismaError, UnsupportedModelError
    from prisma.loaded import Loaded, load
    from prisma.mechanisms.mechanism import mechanism
    from prisma.metrics import KL, Logit, LogitDiff, Probability, Rank, Similarity
    from prisma.runs import record, run
    from prisma.sparse.loading import load_coder
    from prisma.sparse.splicing import Splice
    from prisma.train.notebook import train
    from prisma.vit import ViT

__version__ = "0.1.0"

__all__ = [
    "KL",
    "Add",
    "Loaded",
    "Logit",
    "LogitDiff",
    "Mean",
    "Neuron",
    "PrismaError",
    "Probability",
    "Rank",
    "Resample",
    "Result",
    "Scale",
    "Set",
    "Similarity",
    "Splice",
    "TextConfig",
    "UnsupportedModelError",
    "ViT",
    "ViTConfig",
    "Zero",
    "ablation",
    "activation_patching",
    "artifacts",
    "atp_star",
    "attention_flow",
    "attention_perturbation",
    "attribute",
    "attribute_network",
    "attribution_patching",
    "bootstrap_interval",
    "causal_tracing",
    "check_circuit",
    "circuit_discovery",
    "circuit_evaluation",
    "class_identifiability",
    "class_maps",
    "class_projection",
    "class_similarity_change",
    "class_values",
    "clip_dissect",
    "compare_maps",
    "composition",
    "concept_vectors",
    "direct_logit_attribution",
    "edge_attribution",
    "edge_scores",
    "fourier_components",
    "head_directions",
    "head_graph",
    "head_scores",
    "head_similarity",
    "importance",
    "interchange",
    "lens_segmentation",
    "linear_probes",
    "load",
    "load_coder",
    "logit_lens",
    "map_curves",
    "mean_difference",
    "mechanism",
    "memories",
    "modularity",
    "move_to_registers",
    "norm_weighted_attention",
    "patch",
    "patch_sets",
    "path_patching",
    "read_tuned_lens",
    "record",
    "register_neurons",
    "relevance",
    "relevance_patching",
    "rollout",
    "run",
    "second_order_lens",
    "segmentation",
    "similarity_of",
    "steering",
    "sweep",
    "test_time_registers",
    "text_span",
    "token_perturbation",
    "top_images",
    "train",
    "train_tuned_lens",
    "tuned_lens",
    "weight_graph",
    "with_registers",
]

_HOME = {
    "analysis.attention.artifacts": ("artifacts",),
    "analysis.attention.attention_flow": ("attention_flow",),
    "analysis.attention.head_scores": ("head_scores",),
    "analysis.attention.head_similarity": ("head_similarity",),
    "analysis.attention.norm_weighted_attention": ("norm_weighted_attention",),
    "analysis.attention.register_neurons": ("register_neurons",),
    "analysis.attention.relevance": ("relevance",),
    "analysis.attention.rollout": ("rollout",),
    "analysis.attention.test_time_registers": ("move_to_registers", "test_time_registers", "with_registers"),
    "analysis.attribution.attribute": ("attribute", "attribute_network"),
    "analysis.attribution.compare_maps": ("compare_maps",),
    "analysis.attribution.direct_logit_attribution": ("direct_logit_attribution",),
    "analysis.attribution.importance": ("importance",),
    "analysis.attribution.map_curves": ("map_curves",),
    "analysis.attribution.questions": ("Neuron",),
    "analysis.circuits.atp_star": ("atp_star",),
    "analysis.circuits.attribution_patching": ("attribution_patching",),
    "analysis.circuits.circuit_discovery": ("check_circuit", "circuit_discovery"),
    "analysis.circuits.circuit_evaluation": ("circuit_evaluation", "edge_scores"),
    "analysis.circuits.edge_attribution": ("edge_attribution",),
    "analysis.circuits.head_graph": ("head_graph",),
    "analysis.circuits.path_patching": ("path_patching",),
    "analysis.circuits.relevance_patching": ("relevance_patching",),
    "analysis.class_space.class_identifiability": ("class_identifiability",),
    "analysis.class_space.class_values": ("class_values",),
    "analysis.class_space.class_projection": ("class_projection",),
    "analysis.class_space.class_similarity_change": ("class_similarity_change",),
    "analysis.class_space.attention_perturbation": ("attention_perturbation",),
    "analysis.class_space.token_perturbation": ("token_perturbation",),
    "analysis.class_space.memories": ("memories",),
    "analysis.class_space.linear_probes": ("linear_probes",),
    "analysis.directions.concept_vectors": ("concept_vectors",),
    "analysis.directions.fourier_components": ("fourier_components",),
    "analysis.directions.interchange": ("interchange",),
    "analysis.directions.second_order_lens": ("second_order_lens",),
    "analysis.directions.steering": ("mean_difference", "steering"),
    "analysis.directions.text_span": ("text_span",),
    "analysis.lens.class_maps": ("class_maps",),
    "analysis.lens.logit_lens": ("logit_lens",),
    "analysis.lens.segmentation": ("lens_segmentation", "segmentation"),
    "analysis.lens.tuned_lens": ("read_tuned_lens", "train_tuned_lens", "tuned_lens"),
    "analysis.modularity.modularity": ("modularity",),
    "analysis.modularity.weight_graph": ("weight_graph",),
    "analysis.patching.ablation": ("ablation",),
    "analysis.patching.activation_patching": ("activation_patching", "patch", "patch_sets", "sweep"),
    "analysis.patching.causal_tracing": ("causal_tracing",),
    "analysis.result": ("Result",),
    "analysis.statistics": ("bootstrap_interval",),
    "analysis.clip_dissect": ("clip_dissect", "similarity_of"),
    "analysis.top_images": ("top_images",),
    "analysis.weights.composition": ("composition",),
    "analysis.weights.head_directions": ("head_directions",),
    "config": ("TextConfig", "ViTConfig"),
    "edits": ("Add", "Mean", "Resample", "Scale", "Set", "Zero"),
    "errors": ("PrismaError", "UnsupportedModelError"),
    "loaded": ("Loaded", "load"),
    "mechanisms.mechanism": ("mechanism",),
    "metrics": ("KL", "Logit", "LogitDiff", "Probability", "Rank", "Similarity"),
    "runs": ("record", "run"),
    "sparse.loading": ("load_coder",),
    "sparse.splicing": ("Splice",),
    "train": ("train",),
    "vit": ("ViT",),
}
"""Module below `prisma` -> the public names that live there."""

_MODULE = {name: module for module, names in _HOME.items() for name in names}


_PACKAGES = ("analysis", "editing", "features", "language", "sparse")
"""Packages whose names are used as `prisma.sparse.train`."""


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return import_module(f"prisma.{name}")
    if name not in _MODULE:
        raise AttributeError(f"module 'prisma' has no attribute {name!r}")
    module = import_module(f"prisma.{_MODULE[name]}")
    return module if name == _MODULE[name] else getattr(module, name)  # the package `train` can be called


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
