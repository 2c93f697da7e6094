"""What stands next to an optimum, against loops."""

import pytest
import torch

from prisma.data.pictures import Pictures
from prisma.features.copies import Diversity
from prisma.features.honesty import activations, answers, beside_data, pictures_at, second_opinion
from prisma.features.objectives import Channel, as_objective
from prisma.features.references import TotalVariation
from prisma.features.subjects import subject_of
from prisma.loaded import Loaded
from tests.variants import model_of

SUBJECT = subject_of(model_of("base", torch.float32))
DATA = torch.rand(9, *SUBJECT.shape, generator=torch.Generator().manual_seed(0))
OBJECTIVES = [Channel("blocks.1.mlp.post", 2), as_objective(3) - TotalVariation(), Channel("logits", 1)]


def value(objective, picture: torch.Tensor) -> float:  # type: ignore[no-untyped-def]
    return objective.value(SUBJECT.read(picture[None], objective.reads)).item()


def test_percentiles_and_top_images() -> None:
    rows = [[value(x, picture) for picture in DATA] for x in OBJECTIVES]
    optimum = torch.tensor([[sorted(row)[4] + 1e-4, max(row) + 1] for row in rows]).flatten()
    pictures = Pictures(tuple("abcdefghi"), "hash", lambda some: DATA[list(some)])
    for data in (DATA, pictures):
        found = beside_data(SUBJECT, OBJECTIVES, data, optimum, copies=2, k=3)
        assert found.percentile.tolist() == pytest.approx([100 * 5 / 9, 100] * 3)
        for i, row in enumerate(rows):
            order = sorted(range(9), key=lambda j: -row[j])[:3]
            assert found.images[i].tolist() == order
            assert found.values[i].tolist() == pytest.approx([row[j] for j in order], abs=1e-5)
    assert torch.equal(pictures_at(SUBJECT, DATA, [4, 2]), DATA[[4, 2]])


def test_an_objective_of_several_copies_has_no_percentile() -> None:
    both = [Channel("logits", 0), Channel("logits", 0) + Diversity("blocks.0.resid_post")]
    found = beside_data(SUBJECT, both, DATA, torch.zeros(4), copies=2, k=2)
    assert found.percentile.isnan().tolist() == [False, False, True, True]
    assert found.values.isnan().tolist() == [[False, False], [True, True]]


def test_activations_and_answers_are_those_of_the_images_as_they_are() -> None:
    found = activations(SUBJECT, OBJECTIVES, DATA[:6], copies=2)
    wanted = [value(OBJECTIVES[i // 2], DATA[i]) for i in range(6)]
    assert found.tolist() == pytest.approx(wanted, abs=1e-5)
    logits = SUBJECT.read(DATA, ["logits"])["logits"]
    assert torch.equal(answers(SUBJECT, DATA), logits.argmax(1))
    assert answers(subject_of(model_of("no_head", torch.float32)), DATA).tolist() != []


def test_a_second_model_answers_for_logits_alone() -> None:
    other = subject_of(model_of("registers", torch.float32))
    found, classes = second_opinion(SUBJECT, other, OBJECTIVES, DATA[:3], copies=1)
    logits = other.read(DATA[:3], ["logits"])["logits"]
    assert found.isnan().tolist() == [True, False, False]
    assert found[2].item() == pytest.approx(logits[2, 1].item(), abs=1e-5) and torch.equal(classes, logits.argmax(1))


def test_a_logit_has_no_counterpart_among_other_classes() -> None:
    model = model_of("base", torch.float32)
    named = [subject_of(Loaded(model, None, tuple(names))) for names in ("abcde", "abcdx", "abcde")]
    found = [second_opinion(named[0], other, OBJECTIVES[2:], DATA[:1], 1)[0].isnan().item() for other in named]
    assert found == [False, True, False]
