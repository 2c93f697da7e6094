"""A split of a task as one Parquet file, which the library `datasets` and the Hub's viewer read, and back.

Pictures are PNG files in the column `image`, exact to the 8 bits of a pixel; labels and named factors are classes with
their names. Where a task knows the objects of its images, a PNG has the number of the object that each pixel shows, and
a list says what each is. The bytes depend on the versions of pyarrow and Pillow.
"""

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prisma.data.task import Split, Task
from prisma.data.transform import as_bytes
from prisma.errors import PrismaError, expect_packages, quoted

ROWS = 1000  # of a group: a viewer reads few at a time
IMAGE, LABEL, MASK, OBJECTS, KINDS = "image", "label", "mask", "objects", "kinds"
LARGEST = 4096  # pixels: the largest side of a picture that is read
LARGEST_TABLE = 1 << 32  # bytes that a file that is read may state to unpack to


def columns(task: Task, split: Split) -> dict[str, dict[str, Any]]:
    """The columns of a split, and what each holds, as the library `datasets` describes it."""
    found: dict[str, dict[str, Any]] = {IMAGE: {"_type": "Image"}, LABEL: _named(task.labels)}
    if split.masks is not None:
        found[MASK] = {"_type": "Image"}
    if split.objects is not None:
        found[OBJECTS] = {"_type": "Image"}
    if split.kinds is not None:
        found[KINDS] = {"feature": _named(task.kinds), "_type": "List"}
    for factor in task.factors:
        found[factor.name] = _named(factor.values) if factor.values else {"dtype": "int64", "_type": "Value"}
    return found


def _named(names: tuple[str, ...]) -> dict[str, Any]:
    return {"names": list(names), "_type": "ClassLabel"}


def to_parquet(task: Task, split: Split) -> bytes:
    """A split as the bytes of a Parquet file.

    Raises:
        PrismaError: its images are not pictures with one or three channels; a library is missing.
    """
    expect_packages("pyarrow", "PIL", extra="publish")
    import pyarrow as pa
    from pyarrow import parquet

    if split.images.ndim != 4 or split.images.shape[1] not in (1, 3):
        raise PrismaError(f"expected images [n, 1 or 3, height, width]; found {list(split.images.shape)}")
    schema, out, same = _schema(task, split), io.BytesIO(), split.masks_are_images
    with parquet.ParquetWriter(out, schema, compression="zstd", write_page_index=True) as writer:
        for first in range(0, len(split.labels), ROWS):  # so that no more pictures than these are in memory
            values = _values(task, split, slice(first, first + ROWS), same)
            writer.write_table(pa.table([pa.array(values[field.name], field.type) for field in schema], schema=schema))
    return out.getvalue()


def _values(task: Task, split: Split, rows: slice, masks_are_images: bool) -> dict[str, Any]:
    """What the columns hold in these rows."""
    values: dict[str, Any] = {IMAGE: _pictures(as_bytes(split.images[rows])), LABEL: split.labels[rows].numpy()}
    if split.masks is not None:
        values[MASK] = values[IMAGE] if masks_are_images else _pictures(as_bytes(split.masks[rows, None]))
    if split.objects is not None:
        values[OBJECTS] = _pictures(split.objects[rows, None])
    if split.kinds is not None:
        values[KINDS] = [[None if kind < 0 else kind for kind in row] for row in split.kinds[rows].tolist()]
    return values | {factor.name: split.factors[factor.name][rows].numpy() for factor in task.factors}


def _schema(task: Task, split: Split) -> Any:
    """The columns of a split as Arrow has them: what a reader is told about the names, and the types that fit."""
    import pyarrow as pa

    features = columns(task, split)
    types = {
        "Image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
        "List": pa.list_(pa.field("element", pa.int64())),
    }
    fields = [(name, types.get(feature["_type"], pa.int64())) for name, feature in features.items()]
    return pa.schema(fields, {"huggingface": json.dumps({"info": {"features": features}})})


def _pictures(images: Tensor) -> list[dict[str, Any]]:
    """A PNG file for each of [n, channel, height, width], uint8."""
    from PIL import Image

    found = []
    for pixels in images.permute(0, 2, 3, 1).numpy():
        out = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)).save(out, "PNG")
        found.append({"bytes": out.getvalue(), "path": None})
    return found


def from_parquet(data: bytes, task: Task, like: Split) -> Split:
    """The split that a Parquet file of a task holds: what `to_parquet` wrote, its pixels as bytes (uint8).

    Args:
        like: the split that it must be. It says how many images: of any other number, none is read; and whether they
            are of black and white alone: then they are bool.

    Raises:
        PrismaError: it holds something else; a library is missing.
    """
    expect_packages("pyarrow", "PIL", extra="publish")
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(io.BytesIO(data))
        about = file.metadata
        size = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
        if about.num_rows != (rows := len(like.labels)) or size > LARGEST_TABLE:
            raise ValueError(f"{about.num_rows:,} rows of {size:,} bytes instead of {rows:,} rows")
        if not file.schema_arrow.equals(_schema(task, like), check_metadata=True):
            raise ValueError(f"other columns or names of values: {', '.join(file.schema_arrow.names)}")
        is_bool = like.images.dtype == torch.bool
        groups = [_tensors(file.read_row_group(i).to_pydict(), is_bool) for i in range(about.num_row_groups)]
        found = {name: torch.cat([group[name] for group in groups]) for name in file.schema_arrow.names}
    except Exception as error:  # of any kind: the file is a stranger's
        raise PrismaError(f"expected a split of the task {task.name}; found {quoted(str(error), 200)}") from None
    more = (found.pop(name, None) for name in (OBJECTS, KINDS))
    return Split(found.pop(IMAGE), found.pop(LABEL), found.pop(MASK, None), found, *more)


def _tensors(rows: Mapping[str, list[Any]], is_bool: bool) -> dict[str, Tensor]:
    """The columns of some rows."""
    found = {IMAGE: _black_or_white(_pixels(rows[IMAGE])) if is_bool else _pixels(rows[IMAGE])}
    if MASK in rows:  # the same files are not decoded twice
        same = is_bool and rows[MASK] == rows[IMAGE]
        found[MASK] = (found[IMAGE] if same else _black_or_white(_pixels(rows[MASK])))[:, 0]
    if OBJECTS in rows:
        found[OBJECTS] = _pixels(rows[OBJECTS])[:, 0]
    if KINDS in rows:
        found[KINDS] = _kinds(rows[KINDS])
    return found | {name: torch.tensor(rows[name], dtype=torch.int64) for name in rows if name not in found}


def _kinds(rows: list[list[int | None]]) -> Tensor:
    """What each object is [n, object]; -1 where there is none."""
    return torch.tensor([[-1 if kind is None else kind for kind in row] for row in rows], dtype=torch.int64)


def _pixels(pictures: list[Mapping[str, Any]]) -> Tensor:
    """Pictures as uint8 [n, channel, height, width]. What a PNG says beside its pixels, other readers may obey."""
    from PIL import Image

    found = []
    for picture in pictures:
        with Image.open(io.BytesIO(picture["bytes"]), formats=["PNG"]) as image:
            if max(image.size) > LARGEST:
                raise ValueError(f"a picture of {image.size} pixels")
            pixels = torch.from_numpy(np.array(image))
            if image.mode not in ("L", "RGB") or image.info or picture["path"] is not None:
                raise ValueError(f"a picture of mode {image.mode} with {', '.join(map(str, image.info)) or 'a path'}")
        found.append(pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1))
    return torch.stack(found)


def _black_or_white(pixels: Tensor) -> Tensor:
    """Pixels that are true on white. Raises ValueError where one is grey."""
    white = pixels == 255
    if (white != (pixels > 0)).any():
        raise ValueError("a pixel that is neither black nor white")
    return white
