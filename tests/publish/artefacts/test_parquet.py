"""A split survives Parquet: pixels to 8 bits, the rest exactly; the same split gives the same bytes."""

import io
import json
from dataclasses import replace
from typing import Any

import pyarrow
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from prisma.data import task
from prisma.data.task import Split, data_hash
from prisma.data.transform import as_bytes
from prisma.errors import PrismaError
from prisma.publish.artefacts.parquet import from_parquet, to_parquet


def first(name: str, n: int) -> Split:
    split = task(name).splits["test"]
    tensors = {key: x[:n] for key, x in split.tensors().items()}
    return Split.of_tensors(tensors)


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


def test_objects_and_what_they_are_come_back() -> None:
    """An object that is not there is none in the file, and -1 in the split."""
    data, split = task("clevr"), first("clevr", 12)
    file = to_parquet(data, split)
    found = from_parquet(file, data, split)
    assert data_hash(found) == data_hash(split)
    assert found.objects is not None and split.objects is not None and torch.equal(found.objects, split.objects)
    assert found.kinds is not None and split.kinds is not None and torch.equal(found.kinds, split.kinds)
    rows = parquet.read_table(io.BytesIO(file)).to_pylist()
    assert (split.kinds == -1).any()
    assert [[-1 if kind is None else kind for kind in row["kinds"]] for row in rows] == split.kinds.tolist()


def test_what_other_readers_would_read_otherwise_is_refused() -> None:
    """Names of classes, types, and what a PNG says beside its pixels: `datasets` turns a picture by its EXIF."""
    data, split = task("circle-7"), first("circle-7", 3)
    table = parquet.read_table(io.BytesIO(to_parquet(data, split)))
    about = json.loads(table.schema.metadata[b"huggingface"])
    about["info"]["features"]["label"]["names"].reverse()
    turned, out = Image.Exif(), io.BytesIO()
    turned[0x0112] = 3
    pictures = table["image"].to_pylist()
    with Image.open(io.BytesIO(pictures[0]["bytes"])) as image:
        image.save(out, "PNG", exif=turned)
    for changed, words in (
        (table.replace_schema_metadata({"huggingface": json.dumps(about)}), "other columns or names of values"),
        (table.replace_schema_metadata(None), "other columns or names of values"),
        (table.append_column("label", table["label"]), "other columns or names of values"),
        (table.set_column(1, "label", table["label"].cast("double")), "other columns or names of values"),
        (with_picture(table, {"bytes": out.getvalue(), "path": None}), "a picture of mode L with exif"),
        (with_picture(table, {**pictures[0], "path": "/etc/passwd"}), "a picture of mode L with a path"),
    ):
        file = io.BytesIO()
        parquet.write_table(changed, file)
        with pytest.raises(PrismaError, match=f"expected a split of the task circle-7; found '{words}"):
            from_parquet(file.getvalue(), data, split)


def with_picture(table: Any, picture: dict[str, Any]) -> Any:
    """A table whose first picture is another one."""
    rows = [picture, *table["image"].to_pylist()[1:]]
    return table.set_column(0, "image", pyarrow.array(rows, table.schema.field("image").type))
