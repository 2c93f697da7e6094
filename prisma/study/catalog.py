"""The analyses that go over a data set, by name: `prisma analyze NAME`. To add one is to add an entry.

Each returns a result whose arrays have the image axis first, so that those of shards can be joined.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
from prisma.analysis.result import Result
from prisma.errors import PrismaError, nearest
from prisma.study.inputs import ShardInputs


@dataclass(frozen=True)
class Option:
    """What an analysis can be told."""

    help: str
    kind: type = str


OPTIONS: Mapping[str, Option] = {
    "metric": Option("the number that is asked of the answer: logit, probability, logit_diff (to the next best)"),
    "target": Option("the class that it is of, by number; the model's own answer to each image if not given", int),
    "corrupt": Option("the other image of each pair: other, swap, noise, blur, mean, object"),
    "sigma": Option("strength of noise (standard deviations) or blur (pixels)", float),
    "steps": Option("runs that a gradient is the mean of: 1, or 5 or so for integrated gradients", int),
    "seed": Option("of all that is drawn", int),
    "into": Option("the run that is patched: clean or corrupt"),
    "site": Option("what is patched: attn.z, attn.pattern, resid_pre, resid_post, attn_out, mlp_out, mlp.post ..."),
    "axis": Option("how it is divided: head, token, component ..."),
    "by": Option("what is put in its place: zero, mean, resample"),
    "window": Option("how many layers are restored at once", int),
    "sever": Option("what is held at its corrupt value: mlp_out or attn_out"),
    "noise": Option("standard deviations of the noise on the object", float),
    "samples": Option("draws of the noise for each image", int),
    "norms": Option("frozen or integrated"),
    "sources": Option("also by the token that a head reads: yes or no", bool),
    "tokens": Option("also of each token alone: yes or no", bool),
    "heads": Option("how the heads of a layer become one: mean, max, min"),
    "residual": Option("the share of the stream that passes attention by", float),
    "scores": Option("names of head scores, with commas between them; all that can be computed if not given"),
    "attention": Option("attn, or time, or pool"),
    "queries": Option("all, class, registers or patches"),
    "measure": Option("jensen_shannon, cosine or cka"),
    "factor": Option("how many times the median norm an artifact has", float),
}
"""Name -> option, for whichever analyses take it."""


@dataclass(frozen=True)
class Analysis:
    """One line of the catalogue."""

    summary: str  # one sentence
    options: Mapping[str, Any]  # those of `OPTIONS` that it takes, and their defaults
    result: type[Result]
    function: Callable[[ShardInputs], Result]


def _metric(name: str = "logit_diff") -> dict[str, Any]:
    return {"metric": name, "target": None}


_PAIRS = {**_metric(), "corrupt": "other", "sigma": None, "seed": 0, "into": "clean"}
_MIXING = {"heads": "mean", "residual": 0.5}


def _ablated(x: ShardInputs) -> Ablation:
    by = x.options["by"]
    reference = {"mean": lambda: x.reference, "resample": lambda: x.others}.get(by, lambda: None)()
    options = x.chosen("by", "axis")
    return ablation(
        x.model, x.images, x.options["site"], x.metric, reference=reference, seed=x.seed, batch=x.batch, **options
    )


def _attributed(x: ShardInputs) -> DirectLogitAttribution:
    baseline = x.reference if x.options["norms"] == "integrated" else None
    options = x.chosen("norms", "sources")
    return direct_logit_attribution(x.model, x.images, x.metric, baseline=baseline, batch=x.batch, **options)


def _scored(x: ShardInputs) -> HeadScores:
    names = x.options["scores"]
    scores = None if names is None else [name.strip() for name in names.split(",")]
    options = x.chosen("attention", "queries")
    return head_scores(x.model, x.images, scores, masks=x.coverage_if_known, batch=x.batch, **options)


def _traced(x: ShardInputs) -> CausalTracing:
    return causal_tracing(
        x.model,
        x.images,
        x.coverage,
        metric=x.metric,
        seed=x.seed,
        scale=embedding_scale(x.model, x.reference),
        batch=x.batch,
        **x.chosen("site", "axis", "window", "sever", "noise", "samples"),
    )


ANALYSES: Mapping[str, Analysis] = {
    "activation_patching": Analysis(
        "What the answer becomes when one part of one layer holds what it computed for the corrupt image.",
        {"site": "attn.z", "axis": None, **_PAIRS},
        ActivationPatching,
        lambda x: activation_patching(
            x.model, x.images, x.corrupt, metric=x.metric, batch=x.batch, **x.chosen("site", "axis", "into")
        ),
    ),
    "attribution_patching": Analysis(
        "Patching of every head, token, attention and MLP to first order, in a few passes.",
        {**_PAIRS, "steps": 1},
        AttributionPatching,
        lambda x: attribution_patching(
            x.model, x.images, x.corrupt, x.metric, batch=x.batch, **x.chosen("into", "steps")
        ),
    ),
    "edge_attribution": Analysis(
        "The same of every edge of the graph: EAP, and with more steps EAP-IG.",
        {**_PAIRS, "steps": 1},
        EdgeAttribution,
        lambda x: edge_attribution(x.model, x.images, x.corrupt, x.metric, batch=x.batch, **x.chosen("into", "steps")),
    ),
    "ablation": Analysis(
        "What the answer loses when one part of one layer says nothing of the image.",
        {"site": "attn.z", "axis": None, "by": "mean", "seed": 0, **_metric()},
        Ablation,
        _ablated,
    ),
    "path_patching": Analysis(
        "What the answer becomes when one node of the graph hears another as it was for the corrupt image.",
        _PAIRS,
        PathPatching,
        lambda x: path_patching(x.model, x.images, x.corrupt, x.metric, batch=x.batch, **x.chosen("into")),
    ),
    "head_graph": Analysis(
        "The same from every head to q, k and v of every later head.",
        _PAIRS,
        HeadGraph,
        lambda x: head_graph(x.model, x.images, x.corrupt, x.metric, batch=x.batch, **x.chosen("into")),
    ),
    "causal_tracing": Analysis(
        "Causal tracing: at which layer and tokens the model holds what it knows of the object.",
        {"site": "resid_post", "axis": "role", "window": 1, "sever": None, "noise": 3.0, "samples": 10, "seed": 0}
        | _metric("probability"),
        CausalTracing,
        _traced,
    ),
    "direct_logit_attribution": Analysis(
        "Direct logit attribution: how much of the answer each head, neuron, token and bias writes.",
        {"norms": "frozen", "sources": False, **_metric("logit")},
        DirectLogitAttribution,
        _attributed,
    ),
    "logit_lens": Analysis(
        "What the model would answer if it stopped after each layer.",
        {"tokens": False},
        LogitLens,
        lambda x: logit_lens(x.model, x.images, batch=x.batch, **x.chosen("tokens")),
    ),
    "rollout": Analysis(
        "Attention rollout: how much of each token stands in each token at the end, by attention alone.",
        _MIXING,
        Rollout,
        lambda x: rollout(x.model, x.images, batch=x.batch, **x.options),
    ),
    "attention_flow": Analysis(
        "The largest flow from each token to the answer, with attention as the width of the pipes.",
        _MIXING,
        AttentionFlow,
        lambda x: attention_flow(x.model, x.images, batch=x.batch, **x.options),
    ),
    "relevance": Analysis(
        "What each token does for the answer, by attention weighted with its gradient.",
        _metric("logit"),
        Relevance,
        lambda x: relevance(x.model, x.images, x.metric, batch=x.batch),
    ),
    "head_scores": Analysis(
        "What each head looks at: class token, corners, neighbours, the object, a sink ...",
        {"scores": None, "attention": "attn", "queries": "all"},
        HeadScores,
        _scored,
    ),
    "head_similarity": Analysis(
        "Which heads are alike.",
        {"measure": "jensen_shannon", "attention": "attn"},
        HeadSimilarity,
        lambda x: head_similarity(x.model, x.images, batch=x.batch, **x.options),
    ),
    "norm_weighted_attention": Analysis(
        "The length of what each query receives from each key.",
        {"attention": "attn"},
        NormWeightedAttention,
        lambda x: norm_weighted_attention(x.model, x.images, batch=x.batch, **x.options),
    ),
    "artifacts": Analysis(
        "Tokens of outlying norm, and the attention that each token is given.",
        {"factor": 3.0},
        Artifacts,
        lambda x: artifacts(x.model, x.images, batch=x.batch, **x.options),
    ),
}
"""Name -> analysis."""


def analysis(name: str) -> Analysis:
    """An analysis by name. Raises PrismaError if there is none; the nearest names are given."""
    known = name.replace("-", "_")
    if known not in ANALYSES:
        raise PrismaError(f"there is no analysis {name!r}; the nearest: {nearest(known, ANALYSES)}")
    return ANALYSES[known]


def options_of(name: str, given: Mapping[str, str]) -> dict[str, Any]:
    """All options of an analysis: those given, as text, and the defaults of the others.

    Raises:
        PrismaError: no such analysis, an option that it does not take, or one of another kind.
    """
    defaults = analysis(name).options
    for option in given:
        if option not in defaults:
            raise PrismaError(
                f"the analysis {name} has no option {option!r}; the nearest of its own: {nearest(option, defaults)}"
            )
    return {**defaults, **{option: _parsed(option, text) for option, text in given.items()}}


_WORDS = {"yes": True, "true": True, "no": False, "false": False}
_KINDS = {int: "a whole number", float: "a number", bool: "yes or no"}


def _parsed(name: str, text: str) -> Any:
    kind = OPTIONS[name].kind
    try:
        return _WORDS[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise PrismaError(f"expected {name} to be {_KINDS[kind]}; found {text!r}") from None
