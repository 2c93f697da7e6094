"""`prisma.load_coder`: which layout a folder has, and what is said where there is none. Layouts: `test_layouts`."""

from pathlib import Path

import pytest
import torch

import prisma
from prisma.errors import PrismaError
from prisma.sparse.files import WEIGHTS, write_coder
from tests.sparse.test_coders import random_coder


def test_a_folder_or_a_file_in_it(tmp_path: Path) -> None:
    coder = random_coder("topk", 4, 12, 3, 0).float()
    write_coder(tmp_path, coder)
    for ref in (tmp_path, str(tmp_path), tmp_path / WEIGHTS):
        assert torch.equal(prisma.load_coder(ref).W_enc, coder.W_enc)


def test_what_is_no_coder_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(
        PrismaError, match=r"expected a sparse coder at .*, such as cfg\.json and sae_weights\.safetensors"
    ):
        prisma.load_coder(tmp_path)
    with pytest.raises(
        PrismaError, match=r"expected a folder with a sparse coder, or OWNER/NAME/FOLDER on the Hub; found 'nowhere'"
    ):
        prisma.load_coder("nowhere")
    with pytest.raises(PrismaError, match="expected no revision for"):
        prisma.load_coder(tmp_path, revision="main")
    torch.save({"encoder.bias": torch.ones(3)}, tmp_path / "ae.pt")
    with pytest.raises(PrismaError, match=r"expected W_enc with 2 axes among the weights in .*; found none"):
        prisma.load_coder(tmp_path)


def test_a_repository_may_hold_several_coders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_coder(tmp_path / "layers.3", coder := random_coder("topk", 4, 12, 3, 0).float())
    asked = []

    def download(repo: str, file: str, revision: str | None = None, hint: str = "") -> Path | None:
        asked.append((repo, file, revision))
        return tmp_path / file if (tmp_path / file).is_file() else None

    monkeypatch.setattr("prisma.sparse.loading.download_if_there", download)
    assert torch.equal(prisma.load_coder("lab/coders/layers.3", revision="v1").W_enc, coder.W_enc)
    assert asked[0] == ("lab/coders", "layers.3/cfg.json", "v1")
    for why, said in (
        (None, r"found none of a known layout"),
        ("HF_HUB_OFFLINE is set", "found none in the cache, and HF_HUB_OFFLINE is set"),
    ):
        monkeypatch.setattr("prisma.sparse.loading.no_network", lambda *_, why=why: why)
        with pytest.raises(
            PrismaError,
            match=rf"expected a sparse coder in lab/coders/layers\.4 on the Hub; {said}; there is no folder "
            r"lab/coders/layers\.4 here either",
        ):
            prisma.load_coder("lab/coders/layers.4")
