"""Activations on disk."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

import prisma
from prisma.errors import NotFiniteError, PrismaError
from prisma.launched import Processes
from prisma.sparse.activations import source_of
from prisma.sparse.shards import INDEX, Shards, shard_name, write_activations
from tests.variants import images_of, model_of

SITES = ("blocks.0.resid_post", "blocks.1.attn.z")


@pytest.fixture(scope="module")
def model() -> prisma.ViT:
    return model_of("registers", torch.float32)


def test_they_are_the_models_in_float16(model: prisma.ViT, tmp_path: Path) -> None:
    images = images_of(model, 10)
    shards = write_activations(model, images, tmp_path, sites=SITES, shard_size=4)
    source = source_of(model, images, SITES)
    rows = [9, 0, 1, 2, 4, 5, 3]
    wanted, found = source.read(rows), shards.read(rows)
    assert all(torch.allclose(found[site], wanted[site], rtol=1e-3, atol=1e-4) for site in SITES)
    assert shards.widths == source.widths and shards.roles == source.roles and len(shards) == 10
    patches = shards.expect([SITES[0]], "patches")
    assert torch.equal(patches.read([2])[SITES[0]], shards.read([2])[SITES[0]][:, 4:]) and set(patches.roles) == {
        "patches"
    }
    assert len(list(tmp_path.glob("shard-*"))) == 3


def test_a_stopped_command_continues_and_other_settings_are_refused(model: prisma.ViT, tmp_path: Path) -> None:
    images = images_of(model, 10)
    write_activations(model, images, tmp_path, sites=SITES, shard_size=4)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / shard_name(1)).unlink()
    kept = (tmp_path / shard_name(0)).stat().st_mtime_ns
    with pytest.raises(PrismaError, match=r"expected 3 shards .* found that 1 are missing, first shard-00001"):
        Shards.at(tmp_path)
    write_activations(model, images, tmp_path, sites=SITES, shard_size=4)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert (tmp_path / shard_name(0)).stat().st_mtime_ns == kept
    for more, what in (
        ({"shard_size": 5}, "shard_size"),
        ({"tokens": "class"}, "roles"),
        ({"sites": SITES[:1]}, "widths"),
    ):
        with pytest.raises(PrismaError, match=f"activations of the same {what}; found others: use a new folder"):
            write_activations(model, images, tmp_path, **{"sites": SITES, "shard_size": 4, **more})
    with pytest.raises(PrismaError, match="activations of the same images_sha256"):
        write_activations(model, images + 1, tmp_path, sites=SITES, shard_size=4)


def test_processes_share_the_shards(model: prisma.ViT, tmp_path: Path) -> None:
    images = images_of(model, 10)
    with pytest.raises(PrismaError, match=f"a file at .*{INDEX}"):  # the first process has not written its own
        write_activations(model, images, tmp_path, sites=SITES, shard_size=3, processes=Processes(1, 2))
    assert sorted(path.name for path in tmp_path.iterdir()) == [shard_name(1), shard_name(3)]
    assert len(write_activations(model, images, tmp_path, sites=SITES, shard_size=3, processes=Processes(0, 2))) == 10


def test_what_is_not_there_or_does_not_fit_is_said(model: prisma.ViT, tmp_path: Path) -> None:
    images = images_of(model, 2)
    shards = write_activations(model, images, tmp_path / "a", sites=SITES, tokens="patches")
    with pytest.raises(PrismaError, match=r"expected activations of ln_final in .* found those of blocks.0.resid_post"):
        shards.expect(["ln_final"])
    with pytest.raises(PrismaError, match="expected tokens that are in"):
        shards.expect(SITES, "class")
    with pytest.raises(
        NotFiniteError, match=r"float16 can hold, at most 65,504; found larger ones at embed in image 0"
    ):
        write_activations(model, 1e6 * images, tmp_path / "b", sites=["embed"])
    with pytest.raises(PrismaError, match="expected shard_size to be at least 1; found 0"):
        write_activations(model, images, tmp_path / "c", sites=SITES, shard_size=0)
    for text in ('{"format": "other"}', '{"format": "prisma-activations", "images": "many"}'):
        (tmp_path / "a" / INDEX).write_text(text)
        with pytest.raises(PrismaError, match=f"expected activations with {INDEX}"):
            Shards.at(tmp_path / "a")


def test_only_the_sites_and_kinds_of_tokens_that_are_asked_for_are_read(model: prisma.ViT, tmp_path: Path) -> None:
    shards = write_activations(model, images_of(model, 4), tmp_path, sites=["blocks.*.resid_post"])
    some = shards.expect(["blocks.1.resid_post"], ("patches",))
    assert list(some.read(range(4))) == ["blocks.1.resid_post"] and list(some.widths) == ["blocks.1.resid_post"]
    for tokens in ("patchs", ("class", "object")):
        with pytest.raises(PrismaError, match=r"expected tokens that are in .*; found "):
            shards.expect(["blocks.1.resid_post"], tokens)


def test_files_that_others_wrote_are_checked_where_they_are_read(model: prisma.ViT, tmp_path: Path) -> None:
    shards = write_activations(model, images_of(model, 6), tmp_path, sites=SITES[:1], shard_size=4)
    path, site = tmp_path / shard_name(1), SITES[0]
    whole, x = path.read_bytes(), shards.read([4, 5])[site].half()

    def refused(bad: bytes, error: type[PrismaError], message: str) -> None:
        path.write_bytes(bad)
        with pytest.raises(error, match=message):
            shards.read([0, 5])

    broken = x.clone()
    broken[1, 3, 0] = torch.nan
    refused(save({site: broken}), NotFiniteError, f"expected finite activations at {site}; found nan in image 5")
    refused(
        save({site: x[:1]}), PrismaError, r"expected \[2, 13, 12\] numbers of float16 .*; found \[1, 13, 12\] of F16"
    )
    refused(save({site: x.float()}), PrismaError, r"found \[2, 13, 12\] of F32")
    refused(save({"other": x}), PrismaError, "expected a whole shard of activations at .*; found none")
    refused(whole[:-5], PrismaError, "expected a whole shard of activations at .*; found none")
    path.write_bytes(whole)
    assert torch.equal(shards.read([5])[site].half(), x[1:])
    for change in ({"roles": [5] * 13}, {"roles": ["object"] * 13}, {"widths": {site: "12"}}, {"widths": {site: -12}}):
        (tmp_path / INDEX).write_text(json.dumps({**shards.index, **change}))
        with pytest.raises(PrismaError, match=f"expected activations with {INDEX}"):
            Shards.at(tmp_path)
