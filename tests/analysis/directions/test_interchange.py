"""Interchange: a planted subspace is found, all directions are the whole place, and controls are what they say."""

from typing import Any

import pytest
import torch

import prisma
from prisma import PrismaError
from prisma.analysis.directions.interchange import Interchange
from prisma.analysis.directions.subspaces import overlap
from tests.analysis.directions.planted import triples, two_variables
from tests.variants import images_of, model_of


@pytest.fixture(scope="module")
def found() -> tuple[Interchange, torch.Tensor]:
    model, directions = two_variables()
    return prisma.interchange(
        model, *triples(200, 0), *triples(100, 1), "blocks.0.resid_post", where=0, steps=150
    ), directions


def test_the_planted_direction_is_found(found: tuple[Interchange, torch.Tensor]) -> None:
    result, directions = found
    assert overlap(result.subspace, directions[:, :1].double()).item() > 0.999
    assert result.of("learned").mean() == 1
    _, source, labels = triples(100, 1)
    base = triples(100, 1)[0]
    model = two_variables()[0]
    for method, images in (("no exchange", base), ("whole place", source)):
        assert torch.equal(result.of(method), (model(images).argmax(1) == labels).float()), method
    for control in ("random subspaces", "shuffled labels", "random model"):
        assert result.of(control).mean() < 0.75, control
    assert result.loss[-1] < 0.7 < result.loss[0]
    assert result.training_accuracy[0] == 1 > result.training_accuracy[1]


def test_a_direction_of_the_other_variable_is_no_answer(found: tuple[Interchange, torch.Tensor]) -> None:
    assert overlap(found[0].subspace, found[1][:, 1:].double()).item() < 1e-3


def test_its_row_space_is_all_of_it_where_the_head_reads_the_planted_direction() -> None:
    model, _ = two_variables()
    result = prisma.interchange(model, *triples(200, 0), *triples(100, 1), "pooled", steps=150)
    assert result.read is not None and result.read.item() > 0.999
    assert result.of("its row space").mean() == 1
    assert torch.equal(result.of("its null space"), result.of("no exchange"))


def test_all_directions_are_the_whole_place() -> None:
    model = model_of("base").requires_grad_(False)
    images, sources, labels = images_of(model, 8), images_of(model, 8, 5), torch.arange(8) % 5
    site = "blocks.0.resid_mid"
    result = prisma.interchange(model, images, sources, labels, images, sources, labels, site, dim=12, steps=2)
    assert torch.equal(result.of("learned"), result.of("whole place"))
    source = prisma.record(model, sources, site)[1][site][:, :1]
    logits = prisma.run(model, images, {site: prisma.Set(source).at(token=[0])})
    assert torch.equal(result.of("whole place"), (logits.argmax(1) == labels).double())


def test_the_report_the_interval_and_the_picture(found: tuple[Interchange, torch.Tensor]) -> None:
    result = found[0]
    low, high = result.interval()
    assert (low[0], high[0]) == (1, 1) and (low <= high).all()
    assert result.report().splitlines()[0] == "learned: 1.00 (1.00 to 1.00)"
    assert result.plot().axes and result.plot("loss").axes
    with pytest.raises(PrismaError, match=r"expected one of learned, .*; found 'best'"):
        result.of("best")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dim": 0}, "expected dim from 1 to 8, the features of blocks.0.resid_post; found 0"),
        ({"dim": 9}, "expected dim from 1 to 8"),
        ({"steps": 0}, "expected steps, pairs and lr above 0; found 0, 64 and 0.1"),
        ({"lr": 0.0}, "expected steps, pairs and lr above 0"),
        ({"site": "blocks.0.mlp_out"}, "no site of this model matches"),
        ({"labels": torch.ones(5).long()}, "expected training pairs of two counterfactual labels or more; found one"),
        ({"labels": torch.zeros(3).long()}, "expected a label for each of 5 images"),
        ({"test_labels": torch.full((5,), 9)}, "expected a class from 0 to 3; found 9"),
        ({"source_images": triples(4, 0)[1]}, r"expected a source of the same shape for each image, .*; found \[5, 2"),
        (
            dict(zip(("test_images", "test_source_images", "test_labels"), triples(0, 0), strict=True)),
            "at least one; found",
        ),
        ({"site": 3}, "expected the name of one site; found 3"),
    ],
)
def test_bad_input_is_one_sentence(changed: dict[str, Any], message: str) -> None:
    names = ("images", "source_images", "labels", "test_images", "test_source_images", "test_labels")
    given: dict[str, Any] = dict(zip(names, (*triples(5, 0), *triples(5, 1)), strict=True))
    given |= {"site": "blocks.0.resid_post", "where": 0}
    with pytest.raises(PrismaError, match=message):
        prisma.interchange(two_variables()[0], **given | changed)
