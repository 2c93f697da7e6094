"""The table of all methods: its figures are those of the single functions, and its rows are what they must be."""

import pytest
import torch

from prisma import PrismaError, load
from prisma.analysis.attribution.attribute import attribute
from prisma.analysis.attribution.compare_maps import FIGURES, CompareMaps, compare_maps
from prisma.analysis.attribution.map_checks import map_scores
from prisma.analysis.attribution.map_curves import map_curves
from prisma.analysis.attribution.methods import METHODS
from prisma.data import task
from prisma.data.task import coverage
from tests.variants import images_of, model_of


def test_all_methods_and_the_two_anchors_are_rows() -> None:
    model = model_of("base", n_layers=1, image_size=4)
    images, covered = images_of(model, n=2), torch.zeros(2, 2, 2)
    covered[:, 0] = 1
    found = compare_maps(model, images, [0, 1], coverage=covered, samples=6, points=3)
    methods = [*METHODS, "oracle", "random"]
    assert found.metadata["methods"] == methods and found.sanity.shape == (2, len(methods))
    rows = {row["method"]: row for row in found.rows()}
    assert [name for name, row in rows.items() if row["deletion"] == "refused"] == ["deep_lift"]
    assert rows["oracle"]["auroc"] == "1.00 (1.00 to 1.00)" and not rows["oracle"]["sanity"]
    lines = found.report().splitlines()
    assert lines[0].split() == ["method", *FIGURES] and len(lines) == len(methods) + 1
    alone = attribute(model, images, [0, 1], "occlusion")
    curve = map_curves(model, images, alone.map, [0, 1], points=3)
    at = methods.index("occlusion")
    torch.testing.assert_close(found.deletion[:, at], curve.per_image)
    torch.testing.assert_close(found.mass[:, at], map_scores(alone.patches.flatten(1), covered.flatten(1)).mass)
    assert found.plot().axes and found.plot("auroc").axes


def test_on_the_sprites_mouse_the_oracle_and_relevance_beat_random() -> None:
    sprites, model = task("sprites"), load("mice/sprites").model
    images, labels = sprites.inputs("test", 16)
    covered = coverage(sprites.splits["test"].masks[:16], 4)
    found = compare_maps(
        model, images, labels, coverage=covered, methods=["relevance", "cp_lrp", "importance"], points=7
    )
    for method in ("oracle", "relevance", "cp_lrp"):
        assert found.figure("deletion", method)[1] > found.figure("deletion", "random")[2]
    assert found.figure("auroc", "relevance")[1] > 0.85
    assert found.figure("auroc", "importance")[0] < 0.65  # where the class is read, not where it comes from
    assert found.figure("sanity", "cp_lrp")[0].abs() < 0.2


def test_without_masks_there_is_no_oracle(tmp_path: object) -> None:
    model = model_of("pool_mean")
    images = images_of(model)
    found = compare_maps(model, images, methods=["occlusion"], points=3)
    assert found.metadata["methods"] == ["occlusion", "random"] and found.auroc.isnan().all()
    assert found.rows()[0]["auroc"] == "" and found.deletion.isfinite().all()
    assert CompareMaps.from_npz(found.to_npz(f"{tmp_path}/x.npz")).rows() == found.rows()


def test_bad_input_is_refused() -> None:
    model = model_of("base")
    images = images_of(model)
    with pytest.raises(PrismaError, match=r"expected coverage \[2, 3, 3\], of the images' patches; found \[2, 6, 6\]"):
        compare_maps(model, images, 1, coverage=torch.zeros(2, 6, 6))
    with pytest.raises(PrismaError, match="a method of attribution; found 'shap'"):
        compare_maps(model, images, 1, methods=["shap"])
    for samples in (0, 1):
        with pytest.raises(PrismaError, match=f"at least 2 samples; found {samples}"):
            compare_maps(model, images, 1, methods=["rise"], samples=samples)
    with pytest.raises(PrismaError, match="absent to be dropped or baseline; found 'grey'"):
        compare_maps(model, images, 1, methods=["relevance"], absent="grey")
