"""Recorded runs, one pass after another: they cover the data in order, and their memory does not grow with it."""

import pytest
import torch

import prisma
from prisma import PrismaError, record
from prisma.analysis.class_space import passes
from prisma.analysis.class_space.passes import chosen_layers, recorded, stage_sites, stages
from prisma.batching import PASS_BYTES
from tests.variants import images_of, model_of


def test_passes_cover_all_images_in_order() -> None:
    model = model_of("base")
    images, sites = images_of(model, 5), stage_sites(model)
    logits, acts = record(model, images, sites)
    found = list(recorded(model, images, sites, 2))
    assert [rows.start for rows, _, _ in found] == [0, 2, 4]
    torch.testing.assert_close(torch.cat([some for _, some, _ in found]), logits)
    for stage, site in enumerate(sites):
        torch.testing.assert_close(torch.cat([stages(model, images, part)[stage] for *_, part in found]), acts[site])


def test_layers_are_there_and_each_once() -> None:
    config = model_of("base").config
    assert chosen_layers(config, None) == [0, 1] and chosen_layers(config, iter([1, 0, 1])) == [1, 0]
    for layers in ([2], [-1], []):
        with pytest.raises(PrismaError, match="expected layers from 0 to 1; found"):
            chosen_layers(config, layers)
    with pytest.raises(PrismaError, match="expected a model with layers; found n_layers=0"):
        chosen_layers(model_of("no_layers").config, None)


def test_there_are_images() -> None:
    model = model_of("base")
    with pytest.raises(PrismaError, match="expected at least one image; found none"):
        prisma.class_projection(model, images_of(model)[:0])


def test_a_model_without_layers_has_one_stage() -> None:
    model = model_of("no_layers")
    images = images_of(model)
    assert torch.equal(stages(model, images, {})[0], model.embed(images))


def test_what_is_recorded_counts(monkeypatch: object) -> None:
    """More classes and more sites make smaller passes."""
    model = model_of("base", torch.float32)
    sizes = []
    for numbers in (10**4, 10**7):
        rows, *_ = next(recorded(model, images_of(model, 40), stage_sites(model), None, numbers=numbers))
        sizes.append(rows.stop)
        assert rows.stop * numbers * 4 <= PASS_BYTES
    assert sizes[1] < sizes[0]
    assert passes.block_memory(model) > 0
