"""Curves of removal against runs that are made one by one, on a model whose answer is known, and what they cost."""

import pytest
import torch

from prisma import Logit, PrismaError, load
from prisma.analysis.attribution.map_curves import area, map_curves, order_of, points_of
from prisma.data import task
from prisma.data.task import coverage
from tests.variants import images_of, model_of


@pytest.mark.parametrize("kind", ["deletion", "insertion"])
@pytest.mark.parametrize("absent", ["dropped", "baseline"])
def test_a_curve_is_one_run_after_the_other(kind: str, absent: str) -> None:
    model = model_of("base")
    images = images_of(model)
    maps = torch.randn(2, 10, generator=torch.Generator().manual_seed(0)).double()
    found = map_curves(model, images, maps, [1, 2], curve=kind, absent=absent, batch=3)
    for image in range(2):
        order = maps[image, 1:].argsort(descending=True)
        for k in range(10):
            present = order[k:] if kind == "deletion" else order[:k]
            kept = torch.cat([torch.zeros(1).long(), 1 + present.sort().values])
            if absent == "dropped":
                stream = model.embed(images[image : image + 1])[:, kept]
            else:
                stream = model.embed(torch.zeros_like(images[:1])).clone()
                stream[:, kept] = model.embed(images[image : image + 1])[:, kept]
            expected = model.readout(model.encode(stream))[0, 1 + image]
            torch.testing.assert_close(found.curve[image, k], expected)
    ends = [model(images).gather(1, torch.tensor([[1], [2]]))[:, 0], found.random[:, 0], found.random[:, -1]]
    torch.testing.assert_close(found.curve[:, 0 if kind == "deletion" else -1], ends[0])
    torch.testing.assert_close(found.curve[:, [0, -1]], torch.stack(ends[1:], 1))  # both ends are those of any order


def test_the_oracle_beats_random_orders_on_the_sprites_mouse() -> None:
    sprites, model = task("sprites"), load("mice/sprites").model
    images, labels = sprites.inputs("test", 20)
    covered = coverage(sprites.splits["test"].masks[:20], 4)
    drawn = torch.rand(20, 49, generator=torch.Generator().manual_seed(0))
    oracle, random = (map_curves(model, images, m, labels, points=6) for m in (covered, drawn))
    assert oracle.interval()[0] > 2 and random.interval()[0] < 0 < random.interval()[1] + 1
    assert oracle.effect - random.effect > 3
    assert float(oracle.interval("area")[1]) < float(oracle.interval("random_area")[0])


def test_a_curve_costs_half_a_forward_for_each_token() -> None:
    model = model_of("base")
    images, tokens = images_of(model), 0

    def count(module: object, args: tuple[torch.Tensor, ...]) -> None:
        nonlocal tokens
        tokens += args[0].shape[0] * args[0].shape[1]

    hook = model.blocks[0].register_forward_pre_hook(count)
    map_curves(model, images, torch.randn(2, 9), Logit(1))
    hook.remove()
    of_curves = tokens / model.config.n_tokens / len(images) / 2  # of the map and of the random order
    assert of_curves <= (model.config.n_tokens + 1) / 2


def test_ties_are_in_a_random_order_and_areas_are_means() -> None:
    orders = order_of(torch.tensor([[1.0, 2.0, 1.0, 1.0]]).expand(200, -1), 0)
    assert (orders[:, 0] == 1).all() and orders[:, 1].unique().tolist() == [0, 2, 3]
    assert area(torch.tensor([[4.0, 2.0, 0.0]]), torch.tensor([0, 0.5, 1])).tolist() == [2]
    assert points_of(9, None).tolist() == list(range(10)) and points_of(9, 4).tolist() == [0, 3, 6, 9]


def test_it_is_drawn() -> None:
    model = model_of("base")
    found = map_curves(model, images_of(model), torch.randn(2, 3, 3), 1, points=3)
    assert found.plot().axes and found.plot("share").axes


def test_bad_input_is_refused() -> None:
    model = model_of("base")
    images = images_of(model)
    wrong = {
        "deletion or insertion; found 'removal'": {"curve": "removal"},
        "dropped or baseline; found 'grey'": {"absent": "grey"},
        "from 2 to 10 points; found 1": {"points": 1},
        "at least one random order; found 0": {"orders": 0},
    }
    for message, options in wrong.items():
        with pytest.raises(PrismaError, match=message):
            map_curves(model, images, torch.randn(2, 9), 1, **options)  # type: ignore[arg-type]
    for shape in ((2, 8), (2, 9, 1), (1, 9)):
        with pytest.raises(PrismaError, match=r"expected maps \[2, 10\], \[2, 9\], \[2, 3, 3\]; found"):
            map_curves(model, images, torch.randn(shape), 1)
    wide = model_of("base", image_size=(4, 6))
    with pytest.raises(PrismaError, match=r"\[2, 2, 3\]; found \[2, 3, 2\]"):  # not read in another order
        map_curves(wide, images_of(wide), torch.randn(2, 3, 2), 1)
