"""What perturbations share: rates over the tokens that are left, and intervals."""

from dataclasses import replace

import pytest
import torch

from prisma import PrismaError
from prisma.analysis.class_space.class_projection import Projection
from prisma.analysis.class_space.perturbed import LastStage, Perturbed, expect_compat, last_stage
from tests.variants import images_of, model_of

NAN = torch.nan


def made(with_class_token: bool) -> Perturbed:
    first = torch.tensor([[1.0, 0.0, NAN, 1.0], [0.0, NAN, NAN, NAN]])
    clean = torch.tensor([[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    metadata = {"analysis": "x", "prefix": 1, "class_token": True, "with_class_token": with_class_token}
    correct, right = torch.tensor([1.0, NAN]), torch.tensor([1.0, 0.0])
    return Perturbed(
        metadata=metadata, first=first, rank=1 - first, correct=correct, clean_first=clean, clean_rank=1 - clean,
        clean_correct=right,
    )  # fmt: skip


def test_rates_are_over_the_tokens_that_are_left() -> None:
    found = made(False)
    assert found.rate[0] == 0.5 and found.rate[1].isnan()
    assert found.clean_rate[0] == 0.5 and found.clean_rate[1].isnan()
    assert made(True).rate.tolist() == pytest.approx([2 / 3, 0])
    assert made(True).clean_rate.tolist() == pytest.approx([2 / 3, 1])
    assert found.figures() == {"rate": (0.5, 0.5), "accuracy": (0.5, 1.0)}
    low, high = made(True).interval("rate_change").tolist()
    assert low == pytest.approx(-1) and high == pytest.approx(0)
    assert len(made(True).plot().axes[0].patches) == 4
    with pytest.raises(PrismaError, match=r"expected one of rate, clean_rate.*; found 'score'"):
        found.interval("score")


def test_the_last_stage_of_a_run() -> None:
    model = model_of("base")
    images, labels = images_of(model, 3), torch.tensor([0, 3, 1])
    found = last_stage(model, images, labels, Projection(model), 2)
    logits = model(images)
    assert found.correct.tolist() == (logits.argmax(-1) == labels).float().tolist()
    assert found.first[:, 0].tolist() == found.correct.tolist()
    assert found.rank[:, 0].tolist() == (logits > logits.gather(1, labels[:, None])).sum(1).tolist()


def test_as_published_the_class_token_is_in_one_rate_alone() -> None:
    found = made(False)
    found.metadata["compat"] = "vilas2023"
    assert found.rate.tolist() == pytest.approx([2 / 3, 0])
    assert found.clean_rate[0] == 0.5 and found.clean_rate[1].isnan()
    pooled = replace(found, first=torch.ones(2, 4), clean_first=torch.tensor([[0.0, 1, 1, 1], [0, 0, 0, NAN]]))
    assert pooled.figures()["rate"] == (pytest.approx(3 / 5), 1.0)  # over five tokens, not over two images
    expect_compat(None), expect_compat("vilas2023")
    with pytest.raises(PrismaError, match="expected compat to be vilas2023 or none; found 'vilas'"):
        expect_compat("vilas")


def test_what_was_not_added_is_not_a_number() -> None:
    found = LastStage(3, 4)
    logits = torch.tensor([[[1.0, 2.0], [2.0, 1.0]]])
    found.add(torch.tensor([1]), torch.tensor([[0, 3]]), logits, logits[:, 1], torch.tensor([1]))
    assert found.first[1, [0, 3]].tolist() == [1, 0] and found.correct[1] == 0
    assert found.first.isnan().sum() == 10 and found.correct.isnan().tolist() == [True, False, True]
    assert all(x.isnan().all() for x in found.of(torch.tensor([True, False, True])).arrays().values())
