"""A block can be continued from its sites: the rest of the run is that of the whole block."""

from typing import Any

import pytest
import torch

import prisma
from prisma.blocks import BRANCHES, RESUMABLE
from prisma.inventory import site_names
from prisma.runs import resume
from prisma.sites import Tap
from tests.variants import VARIANTS, images_of, model_of, tower_of

LAYER = 0


def inputs_of(name: str) -> tuple[Any, torch.Tensor]:
    """A model or a text tower, and inputs for it."""
    if name in VARIANTS:
        model = model_of(name)
        return model, images_of(model, 2)
    tower = tower_of(name)
    ids = torch.randint(
        0, tower.config.vocabulary, (2, tower.config.context), generator=torch.Generator().manual_seed(0)
    )
    return tower, ids


def streams_of(model: Any, inputs: torch.Tensor, edit: Any = None) -> dict[str, torch.Tensor]:
    """Every site of the block `LAYER` without its prefix."""
    _, acts = prisma.record(model, inputs, f"blocks.{LAYER}.*", edit=edit)
    return {site.removeprefix(f"blocks.{LAYER}."): x for site, x in acts.items()}


@pytest.mark.parametrize("name", [name for name, fields in VARIANTS.items() if fields.get("n_layers") != 0])
@torch.no_grad()
def test_a_run_continued_from_a_site_is_the_run(name: str) -> None:
    model, images = inputs_of(name)
    own = streams_of(model, images)
    logits = model(images)
    stream = own.get("resid_time", own["resid_pre"])
    sites = [site for site in (*RESUMABLE, "resid_time") if site in own]
    assert len(sites) >= 3
    for site in sites:
        found = resume(model, images, LAYER, site, own[site], stream, own["resid_mid"])
        torch.testing.assert_close(found, logits, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["base", "parallel", "norm_post", "norm_res_post", "divided", "attention_only"])
@torch.no_grad()
def test_a_changed_value_and_edits_after_it_are_as_in_a_run_with_edits(name: str) -> None:
    model, images = inputs_of(name)
    own = streams_of(model, images)
    stream = own.get("resid_time", own["resid_pre"])
    later = {f"blocks.{LAYER}.resid_post": (prisma.Scale(0.5),)}
    for site in (site for site in (*RESUMABLE, "resid_time") if site in own):
        value = own[site] + 1
        edit = {f"blocks.{LAYER}.{site}": prisma.Set(value)}
        expected = prisma.run(model, images, edit)
        found = resume(model, images, LAYER, site, value, stream, own["resid_mid"])
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
        if site == "resid_post":
            continue  # nothing of the block comes after it
        expected = prisma.run(model, images, {**edit, f"blocks.{LAYER}.resid_post": prisma.Scale(0.5)})
        found = resume(model, images, LAYER, site, value, stream, own["resid_mid"], Tap(edit=later))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", [name for name, fields in VARIANTS.items() if fields.get("n_layers") != 0])
@torch.no_grad()
def test_a_block_up_to_a_site_and_from_there_is_the_block(name: str) -> None:
    model, images = inputs_of(name)
    own, block = streams_of(model, images), model.blocks[LAYER]
    for site in (site for site in RESUMABLE if site in own):
        value, stream, mid = block.until(site, own["resid_pre"])
        torch.testing.assert_close(value, own[site], rtol=0, atol=1e-12)
        torch.testing.assert_close(block.resume(site, value, stream, mid), own["resid_post"], rtol=0, atol=1e-12)
        few = block.resume(site, value + 1, stream, mid, keep=1)
        torch.testing.assert_close(few, block.resume(site, value + 1, stream, mid)[:, :1], rtol=0, atol=1e-12)


@torch.no_grad()
def test_a_text_tower_is_continued_too() -> None:
    tower, ids = inputs_of("last")
    own = streams_of(tower, ids)
    for site in (site for site in RESUMABLE if site in own):
        found = resume(tower, ids, LAYER, site, own[site], own["resid_pre"], own["resid_mid"])
        torch.testing.assert_close(found, tower(ids), rtol=0, atol=1e-12)


@torch.no_grad()
def test_the_steps_of_a_block_are_its_forward() -> None:
    """x + attn(ln1(x)), then x + mlp(ln2(x)), written out."""
    model = model_of("base")
    block, x = model.blocks[0], model.embed(images_of(model))
    after_attn = x + block.attn.write(block.attn.heads(block.ln1(x)))
    expected = after_attn + block.mlp.write(block.mlp.neurons(block.ln2(after_attn)))
    torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-12)


def test_every_branch_ends_in_a_site() -> None:
    sites = {site.removeprefix("blocks.0.") for site in site_names(model_of("divided").config)}
    assert {end for _, _, end in BRANCHES.values()} <= sites
