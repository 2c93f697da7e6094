"""Changing one fact of a language model by a change of rank one of one MLP (ROME), with one key everywhere.

    k   = mean over contexts of what the MLP's last linear map W reads at the subject's last token
    d   = the change of what it writes there, after which the model gives the new answer (`objective`)
    W'  = W + d u^T / (u . k),   u = C^-1 k,   C = E[k k^T] over the tokens of texts, with a ridge

so that W' k = W k + d, and what W says to the keys of the texts changes the least. Where ROME's code uses the bare
prompt's key in the denominator and the mean key in u, edits explode when the two disagree (Gupta et al. 2403.07175).

Source: Meng et al. 2202.05262.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from prisma.editing.rank_one import RIDGE, Covariance, SecondMoment, least_change
from prisma.editing.value import optimal_value
from prisma.editing.weight_edit import LowRank, WeightEdit, source_of
from prisma.errors import PrismaError, quoted
from prisma.language.anatomy import Anatomy, anatomy, evaluating
from prisma.language.facts import Fact
from prisma.language.keys import Batch, in_contexts, keys_at, recorded_inputs, written_contexts
from prisma.language.objective import KL_WEIGHT, AnswerLoss, frozen
from prisma.language.prompts import token_ids

ROWS = 64  # texts in one pass


def rank_one_edit(
    model: nn.Module | Anatomy,
    tokenizer: Any,
    fact: Fact,
    *,
    layer: int,
    covariance: Covariance | None = None,
    texts: Sequence[str] = (),
    contexts: Sequence[str] | None = None,
    ridge: float = RIDGE,
    kl: float = KL_WEIGHT,
    seed: int = 0,
    **search: Any,
) -> WeightEdit:
    """The least change of one MLP after which a model gives `fact.new` as its answer.

    The model is afterwards as it was: `with edit.apply(model):`, `edit.edited(model)`, `edit.write(path)`. `edit.about`
    has the probability of the new answer, of the model as it is and with the edit (`probability_before`, `_after`: mean
    over contexts); look at `prisma.language.edit_scores` for what else the edit does.

    Args:
        model: any causal language model of transformers.
        layer: whose MLP is changed. Causal tracing of MLPs at the last subject token says which (`average_trace`).
        covariance: of the keys of this layer (`key_covariance`); or, in its place, `texts` of which it is computed.
        contexts: templates with `{}` in the place of the prompt (default: the bare prompt, and after 20 texts that the
            model writes, drawn by `seed`).
        ridge, kl: as in `prisma.editing.least_change` and `objective`.
        search: `steps`, `lr`, `decay`, `clamp`, `enough` of `prisma.editing.optimal_value`.

    Raises:
        PrismaError: the fact has no new answer, its subject is not in its prompt, there is no such layer, or the
            covariance is one of another model or layer.
    """
    parts = anatomy(model)
    name = expect_layer(parts, layer)
    expect_new(fact)
    with evaluating(parts.model), frozen(parts.model):
        covariance = expect_covariance(parts, tokenizer, layer, covariance, texts)
        contexts = contexts or written_contexts(parts, tokenizer, seed=seed)
        loss = AnswerLoss(parts, tokenizer, parts.mlp_out[layer], fact.prompt, fact.subject, fact.new, contexts, kl)
        found = optimal_value(loss.start, loss, **search)
        rows, lookup, _ = in_contexts(tokenizer, contexts, fact.prompt, fact.subject)
        key = keys_at(parts, [layer], rows, lookup)[layer].mean(0)
        u, v = least_change(key[None], found.change[None], covariance, ridge=ridge)
        part = LowRank.of(parts.model, f"{name}.weight", u, v)
        with WeightEdit((part,)).apply(parts.model):
            after = loss.probability_now()
    about = {
        "method": "rank_one_edit", "prompt": fact.prompt, "subject": fact.subject, "new": fact.new, "layer": layer,
        "contexts": len(contexts), "keys": covariance.n, "ridge": ridge, "kl": kl, "steps": len(found.losses) - 1,
        "probability_before": loss.probability, "probability_after": after,
    }  # fmt: skip
    return WeightEdit((part,), about)


def key_covariance(model: nn.Module | Anatomy, tokenizer: Any, texts: Sequence[str], layer: int) -> Covariance:
    """How the keys of an MLP spread over all tokens of texts, uncentred.

    Some times as many tokens as a key has numbers are enough (2506.04226); a ridge makes up for fewer.

    Raises:
        PrismaError: no texts, or no such layer.
    """
    return key_covariances(model, tokenizer, texts, [layer])[layer]


@torch.no_grad()
def key_covariances(
    model: nn.Module | Anatomy, tokenizer: Any, texts: Sequence[str], layers: Sequence[int]
) -> dict[int, Covariance]:
    """The same for several layers, from one pass over the texts."""
    parts = anatomy(model)
    names = {layer: expect_layer(parts, layer) for layer in layers}
    if not texts:
        raise PrismaError("expected texts whose tokens are the old keys; found none")
    source = source_of(parts.model)
    moments = {layer: SecondMoment(_keys_of(name), source) for layer, name in names.items()}
    rows = sorted((torch.tensor(token_ids(tokenizer, text)) for text in texts), key=len)
    with evaluating(parts.model):
        for first in range(0, len(rows), ROWS):
            batch = Batch.of(rows[first : first + ROWS], parts.device)
            with recorded_inputs(parts, layers, len(batch.ids)) as inputs:
                batch.logits(parts.model)
            for layer, moment in moments.items():
                moment.add(inputs[layer][batch.mask.bool()])
    return {layer: moment.covariance() for layer, moment in moments.items()}


def expect_covariance(
    parts: Anatomy, tokenizer: Any, layer: int, covariance: Covariance | None, texts: Sequence[str]
) -> Covariance:
    """The covariance that was given, if it is one of these keys of this model, or that of the texts."""
    if (covariance is None) != bool(texts):
        raise PrismaError("expected a covariance, or texts to compute one of; found neither or both")
    if covariance is None:
        return key_covariance(parts, tokenizer, texts, layer)
    covariance.expect_of(_keys_of(parts.mlp_names[layer]), source_of(parts.model), parts.d_mlp)
    return covariance


def expect_layer(parts: Anatomy, layer: int) -> str:
    """The name of the linear map by which the MLP of a layer writes; raises PrismaError if there is no such layer."""
    if not 0 <= layer < len(parts.mlp_out):
        raise PrismaError(f"expected a layer from 0 to {len(parts.mlp_out) - 1}; found {layer}")
    return parts.mlp_names[layer]


def expect_new(fact: Fact) -> None:
    """Raise PrismaError if a fact does not say what it should become."""
    if not fact.new.strip() or fact.new.strip() == fact.true.strip():
        raise PrismaError(
            f"expected a fact with a new answer, other than the true one; found {quoted(fact.new)} for "
            f"{quoted(fact.text, 200)}"
        )


def _keys_of(name: str) -> str:
    return f"inputs of {name}"
