"""A sparse coder of a real DINOv2, as docs/sparse.md shows it: it reconstructs, and its latents live."""

import json
from pathlib import Path

import pytest

import prisma
from prisma.data.pictures import pictures
from prisma.sparse import train
from tools import crops, dashboard

pytestmark = pytest.mark.real
ROOT = Path(__file__).parents[2] / "real"


def test_the_coder_of_the_page_is_found_again(tmp_path: Path) -> None:
    crops.main(tmp_path / "pictures")
    loaded = prisma.load(ROOT / "dinov2-s14")
    shown = json.loads(dashboard.NUMBERS.read_text())
    asked = {name: shown[name] for name in ("width", "k", "steps", "held_out")}
    site, images = "blocks.9.resid_post", pictures(str(tmp_path / "pictures"), loaded.transform, loaded.input_shape)
    train(loaded.model, images, site=site, tokens="patches", kind="topk", lr=1e-3, out=tmp_path / "coder", **asked)
    found = dashboard.figures_of(tmp_path / "coder")
    assert found["fvu"] <= 0.12 and found["dead"] == 0
    assert found == pytest.approx(shown, rel=0.05), "run tools/dashboard.py"
