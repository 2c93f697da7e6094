"""Which library wrote a folder, and the parity check on real weights, on a folder of each library."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models import save_for_hf

import prisma
from prisma import PrismaError
from prisma.pretrained.folders import library_of
from prisma.pretrained.loading import check, load_source
from prisma.pretrained.parity import randomise
from tests.pretrained.open_clip.test_loading import saved as save_open_clip
from tests.pretrained.transformers.cases_images import CASES as TRANSFORMERS


def of_timm(folder: Path) -> None:
    module = timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=5)
    randomise(module)
    save_for_hf(module, str(folder), safe_serialization=True, model_args={"depth": 2})


def of_transformers(folder: Path) -> None:
    module = TRANSFORMERS["vit"]()
    randomise(module)
    module.save_pretrained(folder)  # type: ignore[operator]


def of_open_clip(folder: Path) -> None:
    save_open_clip(folder)


FOLDERS: dict[str, Callable[[Path], None]] = {
    "timm": of_timm,
    "transformers": of_transformers,
    "open_clip": of_open_clip,
}


@pytest.mark.parametrize("library", FOLDERS)
def test_a_folder_of_each_library_is_checked(library: str, tmp_path: Path) -> None:
    FOLDERS[library](tmp_path / "saved")
    assert library_of(tmp_path / "saved") == library
    found = check(tmp_path / "saved")
    assert set(found) == ({"image", "text"} if library == "open_clip" else {"image"})
    assert all(0 <= parity.largest <= 1e-5 and parity.residuals for parity in found.values())
    assert prisma.load(str(tmp_path / "saved")).config.n_layers == len(found["image"].residuals)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_a_live_module_is_checked(dtype: torch.dtype) -> None:
    module = TRANSFORMERS["vit"]().to(dtype)
    randomise(module)
    assert check(module)["image"].largest <= 1e-5
    assert {x.dtype for x in module.parameters()} == {dtype}


@pytest.mark.parametrize("content", ["no json", "[]", json.dumps({"model_type": "prisma-vit"})])
def test_what_no_other_library_wrote_is_ours_to_read(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    assert library_of(tmp_path) is None
    assert load_source(tmp_path) is None


@pytest.mark.parametrize("ref", ["vit_base_patch16_224", "hf", "hf/", "timm/", "open_clip/", "a" * 5000, "\0"])
def test_a_name_of_no_library_is_told_how_names_are_spelled(ref: str) -> None:
    with pytest.raises(PrismaError, match="expected a folder, timm/NAME, hf/ORG/NAME"):
        load_source(ref)


def test_a_name_too_long_for_a_folder_is_none() -> None:
    with pytest.raises(PrismaError, match="timm has no model"):
        load_source("timm/" + "a" * 5000)


def test_a_mouse_is_not_checked() -> None:
    with pytest.raises(PrismaError, match=r"expected a model of timm, .* to check; found lab/tiny"):
        check("lab/tiny")


@pytest.mark.parametrize("ref", [".", TRANSFORMERS["vit"]()])
def test_what_is_here_has_no_revision(ref: Any) -> None:
    with pytest.raises(PrismaError, match=r"expected no revision for .*; found revision='main'"):
        load_source(ref, revision="main")


@pytest.mark.parametrize("size", [-16, 0, 1.5, "x", True, (16,), (16, 16, 16), (16, 0), {16, 8}])
def test_an_image_size_that_is_none_is_refused(size: Any) -> None:
    with pytest.raises(PrismaError, match="expected image_size as a side in pixels or"):
        load_source(TRANSFORMERS["vit"](), image_size=size)


@pytest.mark.parametrize("size", [8, [8, 12]])
def test_an_image_size_is_a_side_or_a_pair(size: Any) -> None:
    assert prisma.load(TRANSFORMERS["vit"](), image_size=size).config.image_sides == ((8, 8) if size == 8 else (8, 12))


def test_a_size_below_one_patch_is_refused() -> None:
    with pytest.raises(PrismaError, match="could not be loaded"):
        prisma.load(timm.create_model("vit_tiny_patch16_224", depth=1), image_size=8)
