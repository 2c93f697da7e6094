"""Stacked checkpoints: each form of the model against a loop over its checkpoints, in float64."""

import warnings

import pytest
import torch

from prisma import Logit, PrismaError, ViT
from prisma.errors import NotFiniteError, PrismaWarning
from prisma.study import checkpoints
from prisma.study.checkpoints import FEW_TOKENS, measure_checkpoints
from tests.variants import ANALYSED, WITH_CLASSES, images_of, model_of

LABELS = Logit(torch.tensor([0, 1, 2, 0, 1]))


def three(variant: str = "base") -> list[ViT]:
    return [model_of(variant, seed=seed) for seed in range(3)]


def by_loop(models: list[ViT], images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return torch.stack([LABELS(model(images)) for model in models])


@pytest.mark.parametrize("variant", [name for name in ANALYSED if name in WITH_CLASSES])
def test_a_stack_is_the_loop_over_checkpoints(variant: str) -> None:
    models = three(variant)
    images = images_of(models[0], 5)
    expected = by_loop(models, images)
    assert not torch.allclose(expected[0], expected[1])
    for batch in (None, 2):
        found = measure_checkpoints(models, images, LABELS, batch=batch, stacked=True)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        assert torch.equal(measure_checkpoints(models, images, LABELS, stacked=False), expected)


def test_few_tokens_are_stacked_and_many_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    models, stacks = three(), list[int]()
    stack = checkpoints._stack
    monkeypatch.setattr(checkpoints, "_stack", lambda some: stacks.append(len(some)) or stack(some))
    many = FEW_TOKENS // models[0].config.n_tokens + 1
    images = images_of(models[0], many)
    measure_checkpoints(models, images[:-1], Logit(0))
    assert stacks == [3]
    measure_checkpoints(models, images, Logit(0))
    measure_checkpoints(models[:1], images[:1], Logit(0))
    assert stacks == [3]
    measure_checkpoints(models, images, Logit(0), batch=1)
    monkeypatch.setattr(checkpoints, "MOST_STACKED", 2)
    found = measure_checkpoints(models, images, Logit(0), batch=1)
    assert stacks == [3, 3, 2, 1]
    torch.testing.assert_close(found, measure_checkpoints(models, images, Logit(0)))


def test_a_hook_is_not_left_out() -> None:
    models = three()
    images = images_of(models[0], 2)
    before = measure_checkpoints(models, images, Logit(0))
    models[1].blocks[0].register_forward_hook(lambda module, inputs, output: 2 * output)
    found = measure_checkpoints(models, images, Logit(0))
    assert torch.allclose(found[0], before[0]) and not torch.allclose(found[1], before[1])
    with pytest.raises(PrismaError, match="expected models without hooks and the like, to stack them"):
        measure_checkpoints(models, images, Logit(0), stacked=True)


@pytest.mark.parametrize("stacked", [True, False])
def test_a_checkpoint_that_is_not_finite_has_no_numbers_and_is_named(stacked: bool) -> None:
    models = three()
    images = images_of(models[0], 2)
    whole = measure_checkpoints(models, images, Logit(0), stacked=stacked)
    with torch.no_grad():
        models[1].embed.patch.weight[0, 0] = torch.nan
    said = r"checkpoint 1 of 3 \(the first is 0\): expected a run that ends in finite"
    with pytest.warns(PrismaWarning, match=said) as warned:
        found = measure_checkpoints(models, images, Logit(0), stacked=stacked)
    assert [one.filename for one in warned] == [__file__], "the line that called it"
    assert found[1].isnan().all() and torch.equal(found[[0, 2]], whole[[0, 2]])
    with pytest.raises(NotFiniteError, match=r"checkpoint 0 of 1 \(the first is 0\): expected a run that ends in"):
        measure_checkpoints(models[1:2], images, Logit(0), stacked=stacked)


def test_what_cannot_be_stacked_is_refused() -> None:
    models, images = three(), images_of(model_of("base"), 2)
    with pytest.raises(PrismaError, match="expected one checkpoint or more; found none"):
        measure_checkpoints([], images, Logit(0))
    with pytest.raises(PrismaError, match="expected checkpoints of one architecture; found another in checkpoint 1"):
        measure_checkpoints([models[0], model_of("rms")], images, Logit(0))
    with pytest.raises(
        PrismaError, match=r"expected checkpoints in one precision; found torch\.float64 and torch\.float32"
    ):
        measure_checkpoints([models[0], model_of("base", torch.float32)], images, Logit(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert measure_checkpoints(models[:1], images, Logit(0), stacked=True).shape == (1, 2)
