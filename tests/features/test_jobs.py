"""Visualisations in a folder: continued, shared, and refused where the settings differ."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import prisma
from prisma.data.pictures import Pictures, pictures
from prisma.errors import PrismaError
from prisma.features.card import card
from prisma.features.jobs import CARD, RESULT, SETTINGS, SHEET, FeatureJob, run_features
from prisma.features.objectives import Channel, Direction, OfFunction
from prisma.features.visualize import Features, visualize
from prisma.launched import Processes

LOADED = prisma.load("mice/digits")
UNITS = [Channel("logits", 3), Channel("blocks.0.mlp.post", 1), Channel("logits", 7)]


def data() -> Pictures:
    return pictures("digits", LOADED.transform, LOADED.config.input_shape, 12)


def job(out: Path, **changes) -> FeatureJob:  # type: ignore[no-untyped-def]
    settings = {"units": UNITS, "data": data(), "steps": 4, "k": 2, "per_part": 2, **changes}
    return FeatureJob(LOADED, out=out, provenance={"model": "mice/digits"}, **settings)


def test_a_folder_is_shared_continued_and_equal_to_one_call(tmp_path: Path) -> None:
    out = tmp_path / "features"
    waited: list[int] = []

    def other_process() -> None:
        """What the second process does while the first waits for the folder, then for the parts."""
        waited.append(1)
        if len(waited) == 1:
            run_features(job(out), processes=Processes(1, 2, barrier=lambda: None), progress=False)

    with pytest.raises(PrismaError, match=r"part-00000\.npz"):  # the first part is not there yet for the second
        run_features(job(out), processes=Processes(0, 2, barrier=other_process), progress=False)
    kept = (out / "part-00001.npz").stat().st_mtime_ns
    found = run_features(job(out), progress=False)
    assert (out / "part-00001.npz").stat().st_mtime_ns == kept, "what is there is not computed again"
    at_once = visualize(LOADED, UNITS, steps=4, k=2, data=data())
    assert torch.allclose(found.images, at_once.images, atol=1e-3) and found.target.tolist() == [0, 1, 2]
    assert found.metadata["targets"] == at_once.metadata["targets"]
    assert torch.equal(Features.from_npz(out / RESULT).images, found.images)
    assert {SETTINGS, RESULT, SHEET, CARD} <= {path.name for path in out.iterdir()}
    assert (out / SHEET).read_bytes().startswith(b"\x89PNG")
    text = (out / CARD).read_text()
    assert text == card(found, LOADED.labels, {"model": "mice/digits"}, SHEET)
    row = next(line for line in text.splitlines() if line.startswith("| blocks.0.mlp.post:1"))
    assert f"| {found.activation[1]:.4g} |" in row and f"| {found.percentile[1]:.4g} |" in row
    with pytest.raises(PrismaError, match="holds features with seed=0; this command has 5: use another --out"):
        run_features(job(out, seed=5), progress=False)
    (out / "part-00000.npz").write_bytes((out / "part-00001.npz").read_bytes())
    with pytest.raises(PrismaError, match=r"expected logits:3 and the next in .*part-00000.npz; found"):
        run_features(job(out), progress=False)


def test_directions_are_told_apart_and_classes_of_the_second_model_are_its_own(tmp_path: Path) -> None:
    """Another direction is another result; a class of the second model has the second's name."""
    site, width = "blocks.1.resid_post", LOADED.config.d_model
    one, two = (Direction(site, torch.eye(width)[i]) for i in range(2))
    second = replace(LOADED, labels=tuple(f"other {i}" for i in range(10)))
    told = {"data": None, "per_part": 1, "second": second}
    found = run_features(job(tmp_path / "out", units=[one, two], **told), progress=False)
    assert not torch.equal(found.images[0], found.images[1]) and found.second is not None and found.second.isnan().all()
    rows = [line for line in (tmp_path / "out" / CARD).read_text().splitlines() if line.startswith("| Direction")]
    for i, row in enumerate(rows):
        assert f"| {LOADED.labels[int(found.answer[i])]} |" in row and f"| other {int(found.answer[i])} |" in row
    with pytest.raises(PrismaError, match="holds features with units="):
        run_features(job(tmp_path / "out", units=[two, one], **told), progress=False)


def test_what_cannot_be_done_leaves_no_folder(tmp_path: Path) -> None:
    for changes, message in (
        ({"units": [Channel("logits", 99)]}, "class|feature of logits below 10; found 99"),
        ({"units": [Channel("blocks.9.mlp.post", 1)]}, "the nearest are"),
    ):
        with pytest.raises(PrismaError, match=message):
            run_features(job(tmp_path / "out", **changes), progress=False)
        assert not (tmp_path / "out").exists()
    for unit in (OfFunction(lambda acts: acts["logits"][:, 0], ("logits",)), UNITS[0]):
        with pytest.raises(PrismaError, match=r"objectives whose names tell them apart, also in a later run; found"):
            job(tmp_path, units=[unit, UNITS[0]])
    with pytest.raises(PrismaError, match="expected one of fft, maco, pyramid, cppn, pixels; found 'gan'"):
        job(tmp_path, by="gan")
