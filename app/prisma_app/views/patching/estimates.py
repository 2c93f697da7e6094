"""The first-order estimate of every patch: attribution patching, one forward and backward pass for all cells."""

from collections.abc import Mapping

import torch
from torch import Tensor

from prisma.analysis.border import record
from prisma.analysis.circuits.attribution_patching import AttributionPatching, attribution_patching
from prisma_app.views.patching.question import Question

FIELDS: Mapping[str, str] = {"resid_pre": "tokens", "attn_out": "attn_tokens", "mlp_out": "mlp_tokens"}
"""Site -> the array of `prisma.attribution_patching` that has its estimate [image, layer, token]."""


def estimates(question: Question) -> tuple[Tensor, Tensor]:
    """By how much patching is estimated to change the metric: each head [layer, head], each token [layer, token].

    Raises:
        PrismaError: the metric has a gradient of zero there, although it differs between the two runs.
    """
    found = _attributions(question)
    return found.heads[0], _tokens(question, found)


def token_estimate(question: Question) -> Tensor:
    """The second of `estimates`."""
    return _tokens(question, _attributions(question) if question.site in FIELDS else None)


def _attributions(question: Question) -> AttributionPatching:
    return attribution_patching(question.model, question.clean, question.corrupt, question.metric, into=question.into)


def _tokens(question: Question, found: AttributionPatching | None) -> Tensor:
    if found is not None and question.site in FIELDS:
        estimate: Tensor = getattr(found, FIELDS[question.site])[0]
        return estimate
    return first_order(question)


def first_order(question: Question) -> Tensor:
    """The same formula at any site: (value in the source run - value here) . gradient, summed over features."""
    sites = [f"blocks.{layer}.{question.site}" for layer in range(question.config.n_layers)]
    with torch.no_grad():
        _, source = record(question.model, question.source, sites)
    with torch.enable_grad():
        logits, own = record(question.model, question.changed.detach().requires_grad_(), sites)
        slopes = torch.autograd.grad(question.metric(logits).sum(), [own[site] for site in sites])
    change = [source[site] - own[site].detach() for site in sites]
    return torch.stack([(c * g).sum(-1)[0] for c, g in zip(change, slopes, strict=True)])
