"""Token perturbation: image by image, index against attention, images without a kind, and the sprites mouse."""

import pytest
import torch
from torch import Tensor

import prisma
from prisma import PrismaError, ViT
from prisma.analysis.class_space import project
from prisma.analysis.class_space.token_perturbation import TokenPerturbation, token_perturbation
from prisma.data import task
from tests.variants import images_of, model_of

SHARE = torch.tensor([[[1, 0.6, 0.2], [0, 0, 0], [0, 0, 0]], [[0.0] * 3] * 3, [[1.0] * 3] * 3, [[0.5, 0, 0]] * 3])
LABELS = torch.tensor([0, 3, 1, 4])


def of(variant: str, **options: str | bool) -> tuple[ViT, Tensor, TokenPerturbation]:
    model = model_of(variant)
    images = images_of(model, 4)
    return model, images, token_perturbation(model, images, LABELS, SHARE, batch=2, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("remove", ["context", "class_label"])
@pytest.mark.parametrize("variant", ["base", "registers", "pool_mean", "no_class_token", "pool_attention", "norm_post"])
def test_every_image_alone_in_a_shorter_sequence(variant: str, remove: str) -> None:
    model, images, found = of(variant, remove=remove)
    c = model.config
    for i, share in enumerate(SHARE.flatten(1)):
        left = share >= 0.5 if remove == "context" else share == 0
        kept = [*range(c.n_prefix), *(c.n_prefix + p for p in left.nonzero()[:, 0].tolist())]
        gone = [t for t in range(c.n_tokens) if t not in kept]
        if not left.any():
            assert all(x[i].isnan().all() for name, x in found.arrays.items() if name != "coverage")
            continue
        assert found.rank[i, gone].isnan().all() and not found.rank[i, kept].isnan().any()
        x = model.encode(model.embed(images[i : i + 1])[:, kept])
        logits = project(model, x)[0]
        assert found.rank[i, kept].tolist() == (logits > logits[:, LABELS[i], None]).sum(1).tolist()
        assert found.correct[i] == (model.readout(x)[0].argmax() == LABELS[i]).float()
        assert found.clean_correct[i] == (model(images[i : i + 1])[0].argmax() == LABELS[i]).float()


@pytest.mark.parametrize("remove", ["context", "class_label"])
@pytest.mark.parametrize("variant", ["base", "pool_mean", "pool_attention_prefix", "registers", "layer_scale"])
def test_removal_by_index_is_removal_by_attention(variant: str, remove: str) -> None:
    found, other = (of(variant, remove=remove, how=how)[2] for how in ("index", "attention"))
    for name, x in found.arrays.items():
        torch.testing.assert_close(other.arrays[name], x, equal_nan=True)


def test_figures_are_over_the_same_images() -> None:
    """Image 1 has no patch of the object and a right answer: it is in neither figure."""
    model = model_of("base")
    images = images_of(model, 4)
    labels = model(images).argmax(-1)
    found = token_perturbation(model, images, labels, SHARE, with_class_token=True)
    there = torch.tensor([0, 2, 3])
    for name, (clean, changed) in found.figures().items():
        own = "rate" if name == "rate" else "correct"
        assert clean == pytest.approx(getattr(found, f"clean_{own}")[there].mean().item())
        assert changed == pytest.approx(getattr(found, own)[there].mean().item())
    few = token_perturbation(model, images[there], labels[there], SHARE[there], with_class_token=True)
    assert all(found.figures()[name] == pytest.approx(pair) for name, pair in few.figures().items())
    assert torch.equal(found.interval("correct"), few.interval("correct"))


def test_as_published_one_pixel_decides_and_the_class_token_is_in_one_rate_alone() -> None:
    model = model_of("base")
    images, masks = images_of(model, 4), torch.zeros(4, 6, 6)
    masks[:, ::2, :2] = 1  # the upper half of each patch of the first column: at its corner
    masks[:, 1, 1] = 1
    masks[3] = 0
    found = token_perturbation(model, images, LABELS, masks, compat="vilas2023")
    corner = masks[:, ::2, ::2]
    same = token_perturbation(model, images, LABELS, corner, with_class_token=True)
    assert found.coverage is not None and torch.equal(found.coverage, corner.flatten(1))
    torch.testing.assert_close(found.rate, same.rate, equal_nan=True)
    own = found.clean_first[:3, 1:][:, corner[0].flatten().bool()]
    assert found.figures()["rate"][0] == pytest.approx(own.mean().item())
    with pytest.raises(PrismaError, match=r"expected masks of pixels \[6, 6\]; found \[3, 3\]"):
        token_perturbation(model, images, LABELS, corner, compat="vilas2023")


def test_attention_that_knows_places_is_masked() -> None:
    _, _, found = of("rotary", how="attention")
    assert not found.rank[0, :3].isnan().any()
    with pytest.raises(PrismaError, match=r"does not know the places of tokens.*rotary='axial'.*: use how='attention'"):
        of("rotary")


def test_on_the_mouse_the_context_alone_is_at_chance() -> None:
    data = task("sprites")
    images, labels = data.inputs("test", 200)
    mouse, masks = prisma.load("mice/sprites").model, data.splits["test"].masks
    assert masks is not None
    found = token_perturbation(mouse, images, labels, masks[:200], remove="class_label")
    assert found.interval("clean_rate")[0] > 0.4
    assert found.interval("rate")[0] < 1 / 40 + 0.05 and found.interval("rate")[1] < 0.1
    assert found.interval("correct_change")[1] < -0.5


def test_what_it_refuses() -> None:
    model = model_of("base")
    images, labels = images_of(model, 4), LABELS
    with pytest.raises(PrismaError, match=r"expected remove to be context or class_label.*found 'mixed' and 'index'"):
        token_perturbation(model, images, labels, SHARE, remove="mixed")
    with pytest.raises(PrismaError, match=r"expected masks .*; found \[4, 2, 2\]"):
        token_perturbation(model, images, labels, torch.ones(4, 2, 2))
