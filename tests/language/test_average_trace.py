"""Averages are means of single traces, and show what is known of the mouse: early subject, late last token."""

from typing import Any

import pytest
import torch
from torch import nn

from prisma.errors import PrismaError
from prisma.language.average_trace import AverageTrace, average_trace
from prisma.language.causal_trace import causal_trace
from prisma.language.facts import Fact
from prisma.language.mouse import LOCAL, known_facts, subjects
from prisma.language.prompts import GROUPS

FIRST, MIDDLE, SUBJECT, NEXT, FURTHER, LAST = range(len(GROUPS))


@pytest.fixture(scope="module")
def hidden(loaded: tuple[nn.Module, Any]) -> AverageTrace:
    return average_trace(*loaded, known_facts()[:24], samples=3)


def test_early_at_the_subject_and_late_at_the_last_token(hidden: AverageTrace) -> None:
    shares, (low, high) = hidden.effect / hidden.total, hidden.interval() / hidden.total
    assert hidden.metadata["known"] == hidden.metadata["facts"] == 24
    assert (low[SUBJECT, :LOCAL] > 0.8).all()  # both names are together at the subject's last token
    assert (high[LAST, :LOCAL] < 0.05).all() and (low[LAST, LOCAL:] > 0.4).all() and low[LAST, -2] > 0.6
    assert shares[SUBJECT].diff().max() < 0.01 and high[SUBJECT, -1] < 0.01  # it falls with every later layer
    assert (high[[NEXT, FURTHER]] < 0.05).all() and shares[MIDDLE].isnan().all()


def test_mlps_at_the_subject_and_attention_at_the_last_token(loaded: tuple[nn.Module, Any]) -> None:
    mlp, attention = (
        average_trace(*loaded, known_facts()[:12], kind=kind, window=2, samples=2) for kind in ("mlp", "attention")
    )
    effect = mlp.effect.nan_to_num()
    assert divmod(int(effect.argmax()), 5) in [(SUBJECT, 0), (SUBJECT, 1)]
    assert (attention.effect[LAST, LOCAL + 1] / attention.total).item() > 0.7


def test_is_the_mean_of_single_traces(loaded: tuple[nn.Module, Any], hidden: AverageTrace, tmp_path: Any) -> None:
    fact, names = known_facts()[3], [fact.subject for fact in known_facts()[:24]]
    one = causal_trace(*loaded, fact.prompt, fact.subject, answer=fact.true, subjects=names, samples=3)
    torch.testing.assert_close(hidden.indirect[3, SUBJECT], one.effect[2])
    torch.testing.assert_close(hidden.indirect[3, LAST], one.effect[-1])
    torch.testing.assert_close(hidden.effect, hidden.indirect.nanmean(0), equal_nan=True)
    assert hidden.metadata["sigma"] == pytest.approx(one.metadata["sigma"])
    again = AverageTrace.from_npz(hidden.to_npz(tmp_path / "trace.npz"))
    torch.testing.assert_close(again.indirect, hidden.indirect, equal_nan=True)
    assert "24 of 24 facts are known" in hidden.report() and hidden.plot().axes and hidden.plot("stderr").axes


def test_facts_that_are_not_known_are_left_out(loaded: tuple[nn.Module, Any]) -> None:
    known = known_facts()[0]
    wrong = Fact(prompt=known.prompt, subject=known.subject, true=known.new)
    found = average_trace(*loaded, [known, wrong], samples=1)
    assert (found.metadata["facts"], found.metadata["known"], len(found.indirect)) == (2, 1, 1)
    assert subjects()[1][0] not in {fact.subject for fact in known_facts()}
    with pytest.raises(PrismaError, match="expected facts that the model knows; found none among 1"):
        average_trace(*loaded, [wrong], samples=1)
