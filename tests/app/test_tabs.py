"""What each tab sends to the page is what the library computes."""

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app import attention, lens, patching
from app.models import Mouse
from app.question import DIRECTIONS, METRICS, Question, asked, default_question, metric_of, sites
from app.session import Session, opened
from prisma import LogitDiff, PrismaError, Probability, record, sweep
from prisma.analysis.lens import logit_lens
from prisma.repository import Published
from prisma.view import Packed, View
from tests.app.conftest import DIGITS, GLYPHS


@pytest.fixture(params=[DIGITS, GLYPHS])
def session(request: pytest.FixtureRequest, lab: Path) -> Session:
    """On a checkpoint from the middle of training."""
    return replace(opened(Mouse(Published(request.param, lab))), index=5)


def read(view: View, name: str) -> torch.Tensor:
    packed: Packed = view.arrays[name]
    raw = gzip.decompress(packed.data)
    dtype, scale = ("<u2", 65535) if packed.type == "uint16" else ("<f4", 1)
    return torch.tensor(np.frombuffer(raw, dtype).astype(np.float64) / scale).view(packed.shape)


def assert_near(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected.double(), rtol=0, atol=8e-6)


def test_attention_is_the_recorded_pattern(session: Session) -> None:
    view, model = attention.view(session), session.loaded.model
    _, acts = record(model, session.picture.x[None], "blocks.*.attn.pattern")
    for layer in range(model.config.n_layers):
        assert_near(read(view, f"layer {layer}"), acts[f"blocks.{layer}.attn.pattern"][0])
    assert view.facts["where"]["step"] == session.mouse.steps[5]


def test_the_lens_is_the_library_s(session: Session) -> None:
    view, model = lens.view(session), session.loaded.model
    x = session.picture.x[None]
    expected = logit_lens(model, x)
    assert_near(read(view, "readout"), expected.readout[:, 0].softmax(-1))
    for stage in range(model.config.n_layers + 1):
        assert_near(read(view, f"stage {stage}"), expected.tokens[stage, 0].softmax(-1))
    assert torch.equal(read(view, "logits").float(), model(x)[0])
    assert_near(read(view, "readout")[-1], model(x)[0].softmax(-1))
    assert view.facts["labels"][view.facts["answer"]] == session.labels[int(model(x).argmax())]


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


def test_facts_are_json(session: Session) -> None:
    for tab in (attention, lens, patching):
        facts = tab.view(session).facts
        assert json.loads(json.dumps(facts))["where"]["model"] == session.mouse.published.repo


def test_the_default_question_is_about_the_final_answers(session: Session) -> None:
    mouse, final = session.mouse, session.mouse.final.model
    asked_now = default_question(mouse, session.picture, session.corrupt)
    assert asked_now.target == int(final(session.picture.x[None]).argmax())
    assert asked_now.against != asked_now.target
    same = default_question(mouse, session.picture, session.picture)
    assert same.against == int(final(session.picture.x[None])[0].argsort(descending=True)[1])


def test_what_the_patching_controls_offer(session: Session) -> None:
    offered = sites(session.mouse)
    assert ("mlp_out" in offered) == (session.mouse.final.config.d_mlp > 0)
    assert asked(session.mouse, METRICS[1], 1, 2, offered[-1], "clean") == Question(
        METRICS[1], 1, 2, offered[-1], "clean"
    )
    assert metric_of(Question(METRICS[0], 1, 2, "resid_pre", "clean"), session.labels)[0] == LogitDiff(1, 2)


@pytest.mark.parametrize(
    ("place", "value"),
    [(0, "accuracy"), (0, None), (1, 99), (1, True), (1, "1"), (2, -1), (2, [1]), (3, "attn.z"), (3, 0), (4, "both")],
)
def test_what_they_do_not_offer(session: Session, place: int, value: Any) -> None:
    values: list[Any] = [METRICS[0], 1, 2, "resid_pre", "clean"]
    values[place] = value
    with pytest.raises(PrismaError, match=r"expected a (metric|class|site|direction) among"):
        asked(session.mouse, *values)


def test_new_images_bring_a_new_question_and_keep_the_rest(session: Session) -> None:
    before = replace(session, question=replace(session.question, metric="probability", into="clean"))
    after = before.with_images(before.mouse.example(3), before.corrupt)
    assert (after.question.metric, after.question.into, after.index) == ("probability", "clean", 5)
    assert after.question.target == int(after.mouse.final.model(after.picture.x[None]).argmax())
