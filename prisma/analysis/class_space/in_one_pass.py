"""Several analyses of class space in one run over the images: each as it is alone, and the model runs once."""

from collections.abc import Sequence

import torch
from torch import Tensor

from prisma.analysis.border import guarded
from prisma.analysis.class_space.class_identifiability import RankReader
from prisma.analysis.class_space.class_similarity_change import ChangeReader
from prisma.analysis.class_space.memories import MemoryReader
from prisma.analysis.class_space.passes import read_all
from prisma.analysis.class_space.ranks import expect_labels
from prisma.analysis.result import Result
from prisma.errors import PrismaError, quoted
from prisma.vit import ViT

ANALYSES = ("class_identifiability", "class_similarity_change", "memories of mlp", "memories of attn")


@guarded
@torch.no_grad()
def in_one_pass(
    model: ViT,
    images: Tensor,
    labels: Tensor,
    *,
    masks: Tensor | None = None,
    analyses: Sequence[str] = ANALYSES,
    batch: int | None = None,
) -> dict[str, Result]:
    """What do identifiability, similarity change and memories say of these images? One run of the model for all.

    Args:
        images, labels, masks, batch: as in `class_identifiability`.
        analyses: which of `ANALYSES`.

    Returns:
        Analysis -> its result, with its own defaults.

    Raises:
        PrismaError: another name, or as the analyses.
    """
    if isinstance(analyses, str) or not analyses or not set(analyses) <= set(ANALYSES):
        raise PrismaError(f"expected analyses, several of {', '.join(ANALYSES)}; found {quoted(analyses)}")
    labels = expect_labels(model, images, labels)
    readers: dict[str, RankReader | ChangeReader | MemoryReader] = {}
    for name in dict.fromkeys(analyses):
        if name.startswith("memories"):
            readers[name] = MemoryReader(model, labels, site=name.rpartition(" ")[2])
        else:
            reader = RankReader if name == "class_identifiability" else ChangeReader
            readers[name] = reader(model, images, labels, masks=masks)
    read_all(model, images, list(readers.values()), batch)
    return {name: reader.result() for name, reader in readers.items()}
