"""What one patch changes: the numbers of a run with that one edit."""

from collections.abc import Callable

import pytest
import torch
from prisma_app.library import Scene
from prisma_app.views.patching import one_patch as module
from prisma_app.views.patching import view
from prisma_app.views.patching.question import question_of

from prisma.analysis.patching.activation_patching import activation_patching
from prisma.edits import Set
from prisma.errors import PrismaError
from prisma.runs import record
from tests.app.unpack import read


@pytest.mark.parametrize(
    ("given", "site", "axis", "unit"),
    [
        ({"cell": "head", "layer": 0, "head": 2}, "attn.z", "head", 2),
        ({"cell": "token", "layer": 1, "token": 5, "into": "corrupt"}, "resid_pre", "token", 5),
    ],
)
def test_a_cell_is_that_of_the_sweep(
    scene: Callable[..., Scene], given: dict[str, object], site: str, axis: str, unit: int
) -> None:
    some = scene(corrupt="4", **given)
    question, shown = question_of(some), view(some, 1)
    sweep = activation_patching(
        question.model, question.clean, question.corrupt, site, question.metric, into=question.into, axis=axis
    )
    layer = int(str(given["layer"]))
    assert shown.facts["runs"]["after"] == pytest.approx(sweep.effect[layer, unit].item(), rel=1e-5)
    assert shown.facts["recovered"] == pytest.approx(sweep.normalised()[layer, unit].item(), rel=1e-4)
    name = f"blocks.{layer}.{site}"
    patterns = ["blocks.0.attn.pattern", "blocks.1.attn.pattern"]
    with torch.no_grad():
        value = record(question.model, question.source, name)[1][name]
        _, own = record(question.model, question.changed, patterns)
        logits, patched = record(question.model, question.changed, patterns, {name: Set(value).at(**{axis: unit})})
    moved = torch.stack([(patched[p] - own[p])[0].abs().sum(-1).mean(-1) / 2 for p in patterns])
    torch.testing.assert_close(read(shown, "moved").float(), moved, atol=1e-5, rtol=0)
    rows = torch.stack([(patched[p] - own[p])[0, :, 0] for p in patterns])
    torch.testing.assert_close(read(shown, "rows").float(), rows)
    assert moved[:layer].sum() == 0  # earlier layers have nothing to notice
    assert moved[1:].sum() > 0
    probability = logits[0].softmax(-1)
    assert [entry["after"] for entry in shown.facts["classes"]] == pytest.approx(
        [probability[entry["class"]].item() for entry in shown.facts["classes"]]
    )


def test_very_many_tokens_have_no_attention(scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WEIGHTS", 100)
    shown = view(scene(cell="head"), 1)
    assert not shown.arrays
    assert shown.facts["classes"]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"layer": 2}, "expected a layer from 0 to 1; found 2"),
        ({"head": 4}, "expected a head from 0 to 3; found 4"),
        ({"cell": "token", "token": 17}, "expected a token from 0 to 16; found 17"),
    ],
)
def test_every_mistake_is_a_sentence(scene: Callable[..., Scene], given: dict[str, object], sentence: str) -> None:
    with pytest.raises(PrismaError, match=sentence):
        view(scene(**given), 1)
