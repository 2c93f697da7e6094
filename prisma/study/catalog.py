"""The analyses that can run over a data set, by name: `prisma analyze NAME`. To add one, add an entry to `ANALYSES`.

Each returns a result whose arrays have the image axis first, so that the results of shards can be merged.
"""

from collections.abc import Mapping
from typing import Any

from prisma.analysis.attention.artifacts import Artifacts, artifacts
from prisma.analysis.attention.attention_flow import AttentionFlow, attention_flow
from prisma.analysis.attention.head_scores import HeadScores, head_scores
from prisma.analysis.attention.head_similarity import HeadSimilarity, head_similarity
from prisma.analysis.attention.norm_weighted_attention import NormWeightedAttention, norm_weighted_attention
from prisma.analysis.attention.relevance import Relevance, relevance
from prisma.analysis.attention.rollout import Rollout, rollout
from prisma.analysis.attribution.direct_logit_attribution import DirectLogitAttribution, direct_logit_attribution
from prisma.analysis.circuits.attribution_patching import AttributionPatching, attribution_patching
from prisma.analysis.circuits.edge_attribution import EdgeAttribution, edge_attribution
from prisma.analysis.circuits.head_graph import HeadGraph, head_graph
from prisma.analysis.circuits.path_patching import PathPatching, path_patching
from prisma.analysis.lens.logit_lens import LogitLens, logit_lens
from prisma.analysis.patching.ablation import Ablation, ablation
from prisma.analysis.patching.activation_patching import ActivationPatching, activation_patching
from prisma.analysis.patching.causal_tracing import CausalTracing, causal_tracing, embedding_scale
from prisma.errors import PrismaError, nearest
from prisma.study.attribution import ATTRIBUTION
from prisma.study.circuits import CIRCUITS, PAIRS
from prisma.study.class_space import CLASS_SPACE
from prisma.study.directions import DIRECTIONS
from prisma.study.entry import Analysis
from prisma.study.inputs import ShardInputs
from prisma.study.modularity import MODULARITY
from prisma.study.options import read_options
from prisma.study.units import UNITS


def _metric(name: str = "logit_diff") -> dict[str, Any]:
    return {"metric": name, "target": None}


_MIXING = {"heads": "mean", "residual": 0.5}


def _ablation(inputs: ShardInputs) -> Ablation:
    by = inputs.options["by"]
    reference = {"mean": lambda: inputs.reference, "resample": lambda: inputs.following_images}.get(by, lambda: None)()
    options = inputs.select_options("by", "axis")
    return ablation(
        inputs.model,
        inputs.images,
        inputs.options["site"],
        inputs.metric,
        reference=reference,
        seed=inputs.seed,
        batch=inputs.batch,
        **options,
    )


def _direct_logit_attribution(inputs: ShardInputs) -> DirectLogitAttribution:
    baseline = inputs.reference if inputs.options["norms"] == "integrated" else None
    options = inputs.select_options("norms", "sources")
    return direct_logit_attribution(
        inputs.model, inputs.images, inputs.metric, baseline=baseline, batch=inputs.batch, **options
    )


def _head_scores(inputs: ShardInputs) -> HeadScores:
    names = inputs.options["scores"]
    scores = None if names is None else [name.strip() for name in names.split(",")]
    options = inputs.select_options("attention", "queries")
    return head_scores(
        inputs.model, inputs.images, scores, masks=inputs.object_coverage_or_none, batch=inputs.batch, **options
    )


def _causal_tracing(inputs: ShardInputs) -> CausalTracing:
    return causal_tracing(
        inputs.model,
        inputs.images,
        inputs.object_coverage,
        metric=inputs.metric,
        seed=inputs.seed,
        scale=embedding_scale(inputs.model, inputs.reference),
        batch=inputs.batch,
        **inputs.select_options("site", "axis", "window", "sever", "noise", "samples"),
    )


ANALYSES: Mapping[str, Analysis] = {
    "activation_patching": Analysis(
        "The metric after one activation of one layer is replaced by its value for the corrupt image.",
        {"site": "attn.z", "axis": None, **PAIRS},
        ActivationPatching,
        lambda inputs: activation_patching(
            inputs.model,
            inputs.images,
            inputs.corrupt,
            metric=inputs.metric,
            batch=inputs.batch,
            **inputs.select_options("site", "axis", "into"),
        ),
    ),
    "attribution_patching": Analysis(
        "A first-order approximation of activation patching for every head, token, attention and MLP.",
        {**PAIRS, "steps": 1},
        AttributionPatching,
        lambda inputs: attribution_patching(
            inputs.model,
            inputs.images,
            inputs.corrupt,
            inputs.metric,
            batch=inputs.batch,
            **inputs.select_options("into", "steps"),
        ),
    ),
    "edge_attribution": Analysis(
        "A first-order approximation of patching every edge of the graph: EAP, and with more steps EAP-IG.",
        {**PAIRS, "steps": 1, "rules": "gradient"},
        EdgeAttribution,
        lambda inputs: edge_attribution(
            inputs.model,
            inputs.images,
            inputs.corrupt,
            inputs.metric,
            batch=inputs.batch,
            **inputs.select_options("into", "steps", "rules"),
        ),
    ),
    **CIRCUITS,
    "ablation": Analysis(
        "The change of the metric when one activation of one layer is replaced by zero, a mean or another image's.",
        {"site": "attn.z", "axis": None, "by": "mean", "seed": 0, **_metric()},
        Ablation,
        _ablation,
    ),
    "path_patching": Analysis(
        "The metric after one edge of the graph carries its value for the corrupt image.",
        {**PAIRS, "mlps": "frozen"},
        PathPatching,
        lambda inputs: path_patching(
            inputs.model,
            inputs.images,
            inputs.corrupt,
            inputs.metric,
            batch=inputs.batch,
            **inputs.select_options("into", "mlps"),
        ),
    ),
    "head_graph": Analysis(
        "Path patching from every head to the q, k and v of every later head.",
        PAIRS,
        HeadGraph,
        lambda inputs: head_graph(
            inputs.model,
            inputs.images,
            inputs.corrupt,
            inputs.metric,
            batch=inputs.batch,
            **inputs.select_options("into"),
        ),
    ),
    "causal_tracing": Analysis(
        "Causal tracing: the layers and tokens at which restoring a clean activation restores the metric.",
        {"site": "resid_post", "axis": "role", "window": 1, "sever": None, "noise": 3.0, "samples": 10, "seed": 0}
        | _metric("probability"),
        CausalTracing,
        _causal_tracing,
    ),
    "direct_logit_attribution": Analysis(
        "Direct logit attribution: how much each head, neuron, token and bias adds to the metric.",
        {"norms": "frozen", "sources": False, **_metric("logit")},
        DirectLogitAttribution,
        _direct_logit_attribution,
    ),
    **ATTRIBUTION,
    "logit_lens": Analysis(
        "The logits that the model would give if it stopped after each layer.",
        {"tokens": False},
        LogitLens,
        lambda inputs: logit_lens(inputs.model, inputs.images, batch=inputs.batch, **inputs.select_options("tokens")),
    ),
    **CLASS_SPACE,
    "rollout": Analysis(
        "Attention rollout: how much each final token depends on each input token, according to attention alone.",
        _MIXING,
        Rollout,
        lambda inputs: rollout(inputs.model, inputs.images, batch=inputs.batch, **inputs.options),
    ),
    "attention_flow": Analysis(
        "Attention flow: the maximum flow from each token to the readout, with attention weights as capacities.",
        _MIXING,
        AttentionFlow,
        lambda inputs: attention_flow(inputs.model, inputs.images, batch=inputs.batch, **inputs.options),
    ),
    "relevance": Analysis(
        "The relevance of each token for the metric, from attention weighted by its gradient.",
        _metric("logit"),
        Relevance,
        lambda inputs: relevance(inputs.model, inputs.images, inputs.metric, batch=inputs.batch),
    ),
    "head_scores": Analysis(
        "Where each head attends: class token, corners, neighbours, the object, a sink, ...",
        {"scores": None, "attention": "attn", "queries": "all"},
        HeadScores,
        _head_scores,
    ),
    "head_similarity": Analysis(
        "How similar the attention patterns of each pair of heads are.",
        {"measure": "jensen_shannon", "attention": "attn"},
        HeadSimilarity,
        lambda inputs: head_similarity(inputs.model, inputs.images, batch=inputs.batch, **inputs.options),
    ),
    "norm_weighted_attention": Analysis(
        "The norm of the vector that each key contributes to each query.",
        {"attention": "attn"},
        NormWeightedAttention,
        lambda inputs: norm_weighted_attention(inputs.model, inputs.images, batch=inputs.batch, **inputs.options),
    ),
    "artifacts": Analysis(
        "Tokens with unusually large norms, and the attention that each token receives.",
        {"factor": 3.0},
        Artifacts,
        lambda inputs: artifacts(inputs.model, inputs.images, batch=inputs.batch, **inputs.options),
    ),
    **UNITS,
    **DIRECTIONS,
    **MODULARITY,
}
"""Name -> analysis."""


def canonical_name(name: str) -> str:
    """The name of an analysis as in `ANALYSES`; dashes are accepted for underscores.

    Raises:
        PrismaError: there is no such analysis; the nearest names are given.
    """
    known = name.replace("-", "_")
    if known not in ANALYSES:
        raise PrismaError(f"expected the name of an analysis; found {name!r}; the nearest: {nearest(known, ANALYSES)}")
    return known


def analysis(name: str) -> Analysis:
    """An analysis by name, with the errors of `canonical_name`."""
    return ANALYSES[canonical_name(name)]


def options_of(name: str, given: Mapping[str, str]) -> dict[str, Any]:
    """Every option of an analysis: the given ones, parsed from text, and the defaults of the others.

    Raises:
        PrismaError: no such analysis, an option that it does not take, or text that does not spell a value.
    """
    return read_options(given, analysis(name).options, canonical_name(name))
