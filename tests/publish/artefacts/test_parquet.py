"""A split survives Parquet: pixels to 8 bits, the rest exactly; the same split gives the same bytes."""

import io
from dataclasses import replace

import pytest
import torch
from pyarrow import parquet

from prisma.data import task
from prisma.data.task import Split, data_hash
from prisma.data.transform import as_bytes
from prisma.errors import PrismaError
from prisma.publish.artefacts.parquet import from_parquet, to_parquet


def first(name: str, n: int) -> Split:
    split = task(name).splits["test"]
    masks = None if split.masks is None else split.masks[:n]
    return Split(split.images[:n], split.labels[:n], masks, {key: x[:n] for key, x in split.factors.items()})


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("name", ["circle-7", "digits"])
def test_there_and_back(name: str, colours: int, masks: bool) -> None:
    data, split = task(name), first(name, 10)
    images = torch.cat([split.images.roll(i, 3) for i in range(colours)], dim=1)
    split = replace(split, images=images, masks=images[:, 0] > 0.5 if masks else None)
    found = from_parquet(to_parquet(data, split), data, split)
    assert data_hash(found) == data_hash(split)
    assert torch.equal(found.images, as_bytes(split.images))
    assert (found.images / 255 - split.images).abs().max() <= 0.5 / 255 + 1e-7
    assert found.factors.keys() == split.factors.keys()
    assert all(torch.equal(found.factors[key], x) for key, x in split.factors.items())
    assert to_parquet(data, split) == to_parquet(data, replace(split, images=images.clone()))


def test_what_is_something_else_is_refused() -> None:
    data = task("circle-7")
    for junk in (b"", b"PAR1", to_parquet(task("digits"), first("digits", 3))):
        with pytest.raises(PrismaError, match="expected a split of the task circle-7"):
            from_parquet(junk, data, first("circle-7", 3))
    with pytest.raises(PrismaError, match=r"found '3 rows of .* bytes instead of 4 rows"):
        from_parquet(to_parquet(data, first("circle-7", 3)), data, first("circle-7", 4))
    with pytest.raises(PrismaError, match=r"expected images .*; found \[3, 2, 8, 8\]"):
        to_parquet(data, replace(first("circle-7", 3), images=torch.zeros(3, 2, 8, 8)))


def test_groups_of_rows_are_small() -> None:
    data = task("circle")
    file = parquet.ParquetFile(io.BytesIO(to_parquet(data, data.splits["train"])))
    assert file.metadata.num_rows == 885
    assert file.metadata.num_row_groups == 1
    assert file.schema_arrow.names == ["image", "label", "first", "second"]


@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.float32])
def test_images_of_every_type_come_back_with_their_hash(kind: torch.dtype) -> None:
    """Of dSprites, whose images are their own masks, and of others whose masks are not the images."""
    data, split = task("circle-7"), first("circle-7", 4)
    white = split.images > 0.95
    images = white if kind == torch.bool else as_bytes(split.images) if kind == torch.uint8 else split.images
    for masks in (white[:, 0], ~white[:, 0]):
        whole = replace(split, images=images, masks=masks)
        found = from_parquet(to_parquet(data, whole), data, whole)
        assert data_hash(found) == data_hash(whole)
        assert found.images.dtype == (torch.bool if kind == torch.bool else torch.uint8)
        assert found.masks is not None and torch.equal(found.masks, masks)


def test_grey_among_black_and_white_is_refused() -> None:
    data, split = task("circle-7"), first("circle-7", 2)
    file = to_parquet(data, split)
    with pytest.raises(PrismaError, match="found 'a pixel that is neither black nor white'"):
        from_parquet(file, data, replace(split, images=split.images > 0.95))
