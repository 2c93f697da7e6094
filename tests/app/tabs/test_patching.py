"""What the tab sends are the library's sweeps."""

import json
from dataclasses import replace

import pytest
import torch

from prisma_app.tabs import patching
from prisma_app.tabs.patching import DIRECTIONS, METRICS, Question
from prisma_app.session import Session
from prisma import LogitDiff, PrismaError, Probability, sweep
from tests.app.unpack import read


@pytest.mark.parametrize("into", DIRECTIONS.values())
@pytest.mark.parametrize("metric", METRICS)
def test_effects_are_the_sweeps(session: Session, into: str, metric: str) -> None:
    question = Question(metric, 1, 2, "attn_out", into)
    view, model = patching.view(replace(session, question=question)), session.loaded.model
    measure = LogitDiff(1, 2) if metric == "logit difference" else Probability(1)
    clean, corrupt = session.picture.x[None], session.corrupt.x[None]
    heads = sweep(model, clean, corrupt, "attn.z", measure, into=into)
    tokens = sweep(model, clean, corrupt, "attn_out", measure, into=into, axis="token")
    assert torch.equal(read(view, "heads").float(), heads)
    assert torch.equal(read(view, "tokens").float(), tokens)
    assert (view.facts["clean"], view.facts["corrupt"]) == (
        measure(model(clean)).item(),
        measure(model(corrupt)).item(),
    )
    middle = (view.facts["low"] + view.facts["high"]) / 2
    assert middle == pytest.approx(view.facts[into])
    assert view.facts["low"] <= min(heads.min(), tokens.min())
    assert view.facts["high"] >= max(heads.max(), tokens.max())


def test_rounding_gets_no_colour(session: Session) -> None:
    view = patching.view(replace(session, corrupt=session.picture))  # no cell differs from the run without a patch
    assert view.facts["high"] - view.facts["low"] == pytest.approx(2 * patching.FINEST)


def test_a_model_too_large_to_patch_is_refused(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    config = session.loaded.config
    runs = config.n_layers * (config.n_heads + config.n_tokens)
    monkeypatch.setattr(patching, "MOST", 1e6)
    with pytest.raises(PrismaError, match=f"is {runs} runs of .* prisma.sweep"):
        patching.view(session)


def test_facts_are_json(session: Session) -> None:
    facts = json.loads(json.dumps(patching.view(session).facts))
    assert facts["where"]["model"] == session.subject.published.repo
