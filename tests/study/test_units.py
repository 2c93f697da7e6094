"""Analyses of units by name: of the whole data set, or of its first images, whatever the shard."""

from pathlib import Path

import pytest
import torch

import prisma
from prisma.errors import PrismaError
from prisma.study.inputs import ShardInputs
from prisma.study.units import UNITS
from tests.study.study import job_of


def test_top_images_are_those_of_the_whole_data_set(tmp_path: Path) -> None:
    job = job_of("top_images", tmp_path, site="blocks.0.mlp.post", units="3,1", top="2", pool="max", where="class")
    found = UNITS["top_images"].function(ShardInputs(job.model, job.pictures, range(2, 4), job.options))
    images = job.pictures.read(range(5))
    expected = prisma.top_images(job.model, images, "blocks.0.mlp.post", [3, 1], 2, where="class", pool="max")
    assert found.metadata == expected.metadata and torch.equal(found.arrays["images"], expected.images)
    assert torch.equal(found.arrays["values"], expected.values)


def test_a_position_is_a_number_and_the_site_is_the_last_layers_neurons_by_default(tmp_path: Path) -> None:
    job = job_of("top_images", tmp_path, where="2")
    found = UNITS["top_images"].function(ShardInputs(job.model, job.pictures, range(5), job.options))
    assert (found.metadata["site"], found.metadata["where"]) == ("blocks.1.mlp.post", 2)
    assert found.metadata["units"] == list(range(10))
    job = job_of("top_images", tmp_path, units="10")
    with pytest.raises(PrismaError, match="10"):
        UNITS["top_images"].function(ShardInputs(job.model, job.pictures, range(5), job.options))


def test_register_neurons_are_found_in_the_first_images_and_moved_in_the_shards(tmp_path: Path) -> None:
    job = job_of("test_time_registers", tmp_path, factor="1.1", neurons="3", stage="1", seed="4")
    found = UNITS["test_time_registers"].function(ShardInputs(job.model, job.pictures, range(2, 4), job.options))
    first = prisma.register_neurons(job.model, job.pictures.reference, stage=1, factor=1.1)
    assert found.metadata["neurons"] == [list(pair) for pair in first.top(3)]
    expected = prisma.test_time_registers(job.model, job.pictures.read(range(2, 4)), first, n=3, seed=4)
    torch.testing.assert_close(found.arrays["logits"], expected.logits)
