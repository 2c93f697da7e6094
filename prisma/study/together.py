"""Several analyses of the same images: pictures are read once, and analyses that can share a run of the model do."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from prisma.analysis.class_space.passes import read_all
from prisma.analysis.result import Result
from prisma.data.pictures import Pictures
from prisma.study.catalog import analysis
from prisma.study.inputs import ShardInputs


def results_together(inputs: Mapping[str, ShardInputs]) -> dict[str, Result]:
    """Name of an analysis -> its result for a shard. All inputs are of the same model and images.

    Those with a reader (`Analysis.reader`) take what they need of one run, whose memory is bounded by its passes.
    """
    readers = {name: make(one) for name, one in inputs.items() if (make := analysis(name).reader) and len(one.rows)}
    sharing = {name: reader for name, reader in readers.items() if reader is not None}
    if len(sharing) > 1:
        first = inputs[next(iter(sharing))]
        with torch.no_grad():
            read_all(first.model, first.images, list(sharing.values()), first.batch)
    else:
        sharing = {}
    return {
        name: sharing[name].result() if name in sharing else analysis(name).function(inputs[name]) for name in inputs
    }


def read_once(found: Pictures) -> Pictures:
    """The same pictures, of which the last that were read are kept for who asks for them again."""
    last: dict[tuple[int, ...], Tensor] = {}

    def read(rows: Sequence[int]) -> Any:
        asked = tuple(rows)
        if asked not in last:
            last.clear()
            last[asked] = found.read(rows)
        return last[asked]

    return replace(found, read=read)
