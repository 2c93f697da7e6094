"""Recorded runs, one pass after another: they cover the data in order, and their memory does not grow with it."""

import torch

from prisma import record
from prisma.analysis.class_space import passes
from prisma.analysis.class_space.passes import recorded, stage_sites, stages
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
