"""Changing many facts at once by changes of the MLPs of several layers (MEMIT).

For every fact, a change of the stream after the last of the layers is found (`objective`), after which the model gives
the new answer. Then, layer by layer upwards, each MLP writes its share of what is still missing:

    R = (Z - H) / layers left,    dW = R [(old C + K K^T)^-1 K]^T      K keys, H streams, the layers below edited

Source: Meng et al. 2210.07229. `old` weighs the keys of the texts against the
new ones; no inverse of C alone is needed.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from prisma.editing.rank_one import RIDGE, Covariance, least_change
from prisma.editing.value import optimal_value
from prisma.editing.weight_edit import LowRank, WeightEdit
from prisma.errors import PrismaError
from prisma.language.anatomy import Anatomy, anatomy, evaluating
from prisma.language.facts import Fact
from prisma.language.keys import in_contexts, keys_at, streams_at, written_contexts
from prisma.language.objective import KL_WEIGHT, AnswerLoss, frozen
from prisma.language.rank_one_edit import expect_covariance, expect_layer, expect_new, key_covariances


def mass_edit(
    model: nn.Module | Anatomy,
    tokenizer: Any,
    facts: Sequence[Fact],
    *,
    layers: Sequence[int],
    covariances: Mapping[int, Covariance] | None = None,
    texts: Sequence[str] = (),
    contexts: Sequence[str] | None = None,
    old: float = 100.0,
    ridge: float = RIDGE,
    kl: float = KL_WEIGHT,
    seed: int = 0,
    **search: Any,
) -> WeightEdit:
    """The changes of some MLPs after which a model gives the new answers of many facts.

    Args:
        layers: whose MLPs share the work, those where causal tracing finds the facts.
        covariances: by layer; or, in their place, `texts` of which they are computed.
        old: how much the keys of the texts count against the new ones. MEMIT takes 15,000 to 20,000 for models of
            billions of weights and thousands of facts; mice need less.
        contexts, ridge, kl, seed, search: as in `rank_one_edit`; `clamp` is 0.75 unless it is given, as in MEMIT.

    Raises:
        PrismaError: no facts, two of them with the same prompt, or as `rank_one_edit`.
    """
    parts, layers = anatomy(model), sorted(set(layers))
    names = {layer: expect_layer(parts, layer) for layer in layers}
    for fact in facts:
        expect_new(fact)
    if not facts or not layers or len({fact.text for fact in facts}) < len(facts):
        raise PrismaError("expected layers, and facts of which each has a prompt of its own; found none, or one twice")
    if covariances is None and texts:
        covariances, texts = key_covariances(parts, tokenizer, texts, layers), ()
    of = {layer: expect_covariance(parts, tokenizer, layer, (covariances or {}).get(layer), texts) for layer in layers}
    search = {"clamp": 0.75, **search}
    with evaluating(parts.model), frozen(parts.model):
        contexts = contexts or written_contexts(parts, tokenizer, seed=seed)
        top = layers[-1]
        rows, lookup, targets = [], [], []
        for fact in facts:
            loss = AnswerLoss(parts, tokenizer, parts.blocks[top], fact.prompt, fact.subject, fact.new, contexts, kl)
            targets.append(loss.start + optimal_value(loss.start, loss, **search).change)
            some, at, _ = in_contexts(tokenizer, contexts, fact.prompt, fact.subject)
            rows.extend(some)
            lookup.append(at)
        at_all, wanted = torch.cat(lookup), torch.stack(targets)
        changes: list[LowRank] = []
        for left, layer in zip(range(len(layers), 0, -1), layers, strict=True):
            with _with(parts.model, changes):
                keys = keys_at(parts, [layer], rows, at_all)[layer].unflatten(0, (len(facts), -1)).mean(1)
                streams = streams_at(parts, top, rows, at_all).unflatten(0, (len(facts), -1)).mean(1)
            u, v = least_change(keys, (wanted - streams) / left, of[layer], ridge=ridge, old=old)
            changes.append(LowRank.of(parts.model, f"{names[layer]}.weight", u, v))
    about = {
        "method": "mass_edit", "facts": [[fact.prompt, fact.subject, fact.new] for fact in facts], "layers": layers,
        "contexts": len(contexts), "old": old, "ridge": ridge, "kl": kl,
    }  # fmt: skip
    return WeightEdit(tuple(changes), about)


def _with(model: nn.Module, changes: Sequence[LowRank]) -> Any:
    """Within, the model has the changes so far."""
    return WeightEdit(tuple(changes)).apply(model) if changes else nullcontext()
