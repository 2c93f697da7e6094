"""Analyses of units by name: of the whole data set, or of its first images, whatever the shard."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import prisma
from prisma.analysis.clip_dissect import ClipDissect
from prisma.errors import PrismaError
from prisma.study.inputs import ShardInputs
from prisma.study.shards import run_dataset_analysis
from prisma.study.units import UNITS
from tests.pretrained.test_zero_shot import pair
from tests.study.study import job_of
from tests.study.test_catalog import GIVEN


def test_top_images_are_those_of_the_whole_data_set(tmp_path: Path) -> None:
    job = job_of("top_images", tmp_path, site="blocks.0.mlp.post", units="3,1", top="2", pool="max", where="class")
    found = UNITS["top_images"].function(ShardInputs(job.model, job.pictures, range(2, 4), job.options))
    images = job.pictures.read(range(5))
    expected = prisma.top_images(job.model, images, "blocks.0.mlp.post", [3, 1], 2, where="class", pool="max")
    assert found.metadata == expected.metadata and torch.equal(found.arrays["images"], expected.images)
    assert torch.equal(found.arrays["values"], expected.values)


def test_units_of_a_head_and_a_position_from_the_end(tmp_path: Path) -> None:
    job = job_of("top_images", tmp_path, site="blocks.0.attn.z", head="2", where="-1", units="1")
    found = UNITS["top_images"].function(ShardInputs(job.model, job.pictures, range(5), job.options))
    images = job.pictures.read(range(5))
    z = prisma.record(job.model, images, "blocks.0.attn.z")[1]["blocks.0.attn.z"][:, -1, 2, 1]
    assert torch.equal(found.arrays["values"][0], z.sort(descending=True).values) and found.metadata["head"] == 2
    job = job_of("top_images", tmp_path, site="blocks.0.attn.z")
    with pytest.raises(PrismaError, match="and a head where it has heads"):
        UNITS["top_images"].function(ShardInputs(job.model, job.pictures, range(5), job.options))


def test_a_position_is_a_number_and_the_site_is_the_last_layers_neurons_by_default(tmp_path: Path) -> None:
    job = job_of("top_images", tmp_path, where="2")
    found = UNITS["top_images"].function(ShardInputs(job.model, job.pictures, range(5), job.options))
    assert (found.metadata["site"], found.metadata["where"]) == ("blocks.1.mlp.post", 2)
    assert found.metadata["units"] == list(range(10))
    job = job_of("top_images", tmp_path, units="10")
    with pytest.raises(PrismaError, match="10"):
        UNITS["top_images"].function(ShardInputs(job.model, job.pictures, range(5), job.options))


def test_words_are_those_of_clip_dissect_for_the_top_images(tmp_path: Path) -> None:
    site = {"site": "blocks.0.mlp.post", "units": "3,1,0", "pool": "max"}
    job = job_of("clip_dissect", tmp_path, **site, **GIVEN["clip_dissect"] | {"top": "2"})
    found = UNITS["clip_dissect"].function(ShardInputs(job.model, job.pictures, range(2, 4), job.options))
    assert isinstance(found, ClipDissect)
    images, words = job.pictures.read(range(5)), ["ab", "cd", "ede"]
    top = prisma.top_images(job.model, images, "blocks.0.mlp.post", None, 2, pool="max")  # of all, as words are
    named = prisma.clip_dissect(top.images, prisma.similarity_of(pair(), images, words), words)
    assert found.metadata["words"] == [named[i].name for i in (3, 1, 0)] and found.metadata["units"] == [3, 1, 0]
    assert found.metadata["clip"] == "a-small-clip" and found.maps is not None and top.maps is not None
    torch.testing.assert_close(found.score, torch.tensor([named[i].score for i in (3, 1, 0)], dtype=torch.float64))
    assert torch.equal(found.images, top.images[[3, 1, 0]]) and torch.equal(found.maps, top.maps[[3, 1, 0]])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"words": None}, "expected --set words=FILE, a file of words to name units by, .*; found none"),
        ({"clip": None}, "expected --set clip=REF, the CLIP that looks at the images: .*; found none"),
        ({"site": "blocks.9.mlp.post"}, r"blocks\.9\.mlp\.post"),
        ({"units": "3,10"}, "expected a feature of blocks.1.mlp.post below 10; found 10"),
        ({"words": "empty"}, "expected words in empty, one on each line; found none"),
        ({"words": "none"}, "expected a file at none; found no such file"),
    ],
)
def test_what_clip_dissect_needs_is_asked_for_before_the_clip_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str | None], message: str
) -> None:
    monkeypatch.setattr("prisma.study.units.load", None)
    monkeypatch.chdir(tmp_path)
    Path("empty").write_text("\n \n")
    asked = {name: value for name, value in (GIVEN["clip_dissect"] | given).items() if value is not None}
    job = job_of("clip_dissect", tmp_path / "out", **asked)
    with pytest.raises(PrismaError, match=message):
        UNITS["clip_dissect"].function(ShardInputs(job.model, job.pictures, range(5), job.options))


def test_a_model_without_text_cannot_name_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prisma.study.units.load", lambda ref: replace(pair(), text=None))
    job = job_of("clip_dissect", tmp_path, **GIVEN["clip_dissect"])
    with pytest.raises(PrismaError, match="expected a CLIP with its text side for clip; found 'a-small-clip', which"):
        UNITS["clip_dissect"].function(ShardInputs(job.model, job.pictures, range(5), job.options))


def test_other_words_in_the_same_file_are_another_analysis(tmp_path: Path) -> None:
    (tmp_path / "words").write_text("ab\ncd\n")
    given = GIVEN["clip_dissect"] | {"words": str(tmp_path / "words")}
    run_dataset_analysis(job_of("clip_dissect", tmp_path / "out", **given), progress=False)
    run_dataset_analysis(job_of("clip_dissect", tmp_path / "out", **given), progress=False)
    (tmp_path / "words").write_text("ab\nce\n")
    with pytest.raises(PrismaError, match="holds an analysis with words_sha256="):
        run_dataset_analysis(job_of("clip_dissect", tmp_path / "out", **given), progress=False)


def test_register_neurons_are_found_in_the_first_images_and_moved_in_the_shards(tmp_path: Path) -> None:
    job = job_of("test_time_registers", tmp_path, factor="1.1", neurons="3", stage="1", seed="4")
    found = UNITS["test_time_registers"].function(ShardInputs(job.model, job.pictures, range(2, 4), job.options))
    first = prisma.register_neurons(job.model, job.pictures.reference, stage=1, factor=1.1)
    assert found.metadata["neurons"] == [list(pair) for pair in first.top(3)]
    expected = prisma.test_time_registers(job.model, job.pictures.read(range(2, 4)), first, n=3, seed=4)
    torch.testing.assert_close(found.arrays["logits"], expected.logits)
