"""What the tab sends is what the library records."""

import json

from prisma_app.session import Session
from prisma_app.tabs import attention

from prisma import record
from tests.app.unpack import assert_near, read


def test_attention_is_the_recorded_pattern(session: Session) -> None:
    view, model = attention.TAB.view(session), session.loaded.model
    _, acts = record(model, session.picture.x[None], "blocks.*.attn.pattern")
    for layer in range(model.config.n_layers):
        assert_near(read(view, f"layer {layer}"), acts[f"blocks.{layer}.attn.pattern"][0])
    assert view.facts["where"]["step"] == session.subject.steps[5]


def test_facts_are_json(session: Session) -> None:
    facts = json.loads(json.dumps(attention.TAB.view(session).facts))
    assert facts["where"]["model"] == session.subject.published.repo
