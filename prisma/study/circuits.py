"""The estimates of patching, and the evaluation of circuits, that can run over a data set; listed by the catalog."""

from collections.abc import Mapping
from typing import Any

from prisma.analysis.circuits.atp_star import AtpStar, atp_star
from prisma.analysis.circuits.relevance_patching import RelevancePatching, relevance_patching
from prisma.study.entry import Analysis

PAIRS: Mapping[str, Any] = {
    "metric": "logit_diff",
    "target": None,
    "corrupt": "other",
    "sigma": None,
    "seed": 0,
    "into": "clean",
}
"""The options of an analysis of pairs."""

CIRCUITS: Mapping[str, Analysis] = {
    "atp_star": Analysis(
        "Attribution patching with patterns recomputed for queries and keys, and without cancellation (AtP*).",
        {**PAIRS, "grad_drop": True},
        AtpStar,
        lambda inputs: atp_star(
            inputs.model,
            inputs.images,
            inputs.corrupt,
            inputs.metric,
            batch=inputs.batch,
            **inputs.select_options("into", "grad_drop"),
        ),
    ),
    "relevance_patching": Analysis(
        "Attribution patching with relevance in the place of the gradient (RelP).",
        {**PAIRS, "rules": "cp_lrp"},
        RelevancePatching,
        lambda inputs: relevance_patching(
            inputs.model,
            inputs.images,
            inputs.corrupt,
            inputs.metric,
            batch=inputs.batch,
            **inputs.select_options("into", "rules"),
        ),
    ),
}
"""Name -> analysis."""
