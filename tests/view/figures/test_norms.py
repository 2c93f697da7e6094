"""The drawing of norms by stage: bands, dots above the cutoff, and lines of prefix tokens."""

import pytest
import torch

from prisma import PrismaError
from prisma.view.figures.norms import draw_norms


def test_patches_above_the_cutoff_are_dots() -> None:
    patches = torch.tensor([[[1.0, 2, 9], [1, 2, 3]], [[1, 2, 3], [8, 2, 3]]])  # two images, two stages, three patches
    prefix = {"class token": torch.tensor([[[4.0], [5]], [[6], [7]]])}
    (panel,) = draw_norms(patches, torch.tensor([5.0, 7]), prefix, title="norms").axes
    lines = {line.get_label(): torch.as_tensor(line.get_xydata()).tolist() for line in panel.lines}
    assert lines["artifacts"] == [[0, 9], [1, 8]]
    assert lines["class token, mean"] == [[0, 5], [1, 6]]
    assert lines["cutoff"] == [[0, 5], [1, 7]]
    assert lines["median patch"] == [[0, 2], [1, 2.5]]
    assert panel.figure.get_suptitle() == "norms"
    band = panel.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (1, 3)  # all patches that are not artifacts


def test_other_shapes_are_refused() -> None:
    with pytest.raises(PrismaError, match=r"found \[2, 3\] and \[2\]"):
        draw_norms(torch.ones(2, 3), torch.ones(2))
    with pytest.raises(PrismaError, match=r"a cutoff of each stage; found \[1, 2, 3\] and \[3\]"):
        draw_norms(torch.ones(1, 2, 3), torch.ones(3))
