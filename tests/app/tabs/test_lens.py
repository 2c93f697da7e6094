"""What the tab sends is the library's logit lens."""

import json

import pytest
import torch
from prisma_app.session import Session
from prisma_app.tabs import lens

from prisma import PrismaError
from prisma.analysis.lens.logit_lens import logit_lens
from tests.app.unpack import assert_near, read


def test_the_lens_is_the_library_s(session: Session) -> None:
    view, model = lens.TAB.view(session), session.loaded.model
    x = session.picture.x[None]
    expected = logit_lens(model, x)
    assert_near(read(view, "readout"), expected.readout[0].softmax(-1))
    for stage in range(model.config.n_layers + 1):
        assert_near(read(view, f"stage {stage}"), expected.tokens[0, stage].softmax(-1))
    assert torch.equal(read(view, "logits").float(), model(x)[0])
    assert_near(read(view, "readout")[-1], model(x)[0].softmax(-1))
    assert view.facts["labels"][view.facts["answer"]] == session.labels[int(model(x).argmax())]


def test_facts_are_json(session: Session) -> None:
    facts = json.loads(json.dumps(lens.TAB.view(session).facts))
    assert facts["where"]["model"] == session.subject.published.repo


def test_more_numbers_than_a_page_should_hold(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    config = session.loaded.config
    found = (config.n_layers + 1) * config.n_tokens * config.n_classes
    monkeypatch.setattr(lens, "MAX_NUMBERS", found)
    lens.TAB.view(session)
    monkeypatch.setattr(lens, "MAX_NUMBERS", found - 1)
    with pytest.raises(PrismaError, match=f"found {found:,}: "):
        lens.TAB.view(session)
