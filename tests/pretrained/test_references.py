"""A reference in another spelling is told how it is written."""

from pathlib import Path

import pytest

import prisma
from prisma import downloads
from prisma.errors import PrismaError
from prisma.pretrained.references import FORMS, expect_spelling
from prisma.repository import MICE
from tests.hubserver.running import serving

VIT = "google/vit-base-patch16-224"
WRITE_VIT = f"write 'hf/{VIT}' for a model of transformers, 'open_clip/{VIT}' for one of open_clip, or '{VIT}' for a"
TIMM = "vit_base_patch16_224.augreg_in21k"

OTHERS = {
    f"https://huggingface.co/{VIT}": WRITE_VIT,
    f"huggingface.co/{VIT}": WRITE_VIT,
    f"https://huggingface.co/{VIT}/": WRITE_VIT,
    f"https://hf.co/{VIT}/tree/main": WRITE_VIT,
    f"https://huggingface.co/{VIT}/blob/v2/config.json": "for a published mouse, with revision='v2'",
    f"https://huggingface.co/timm/{TIMM}": f"write 'timm/{TIMM}'",
    "https://example.org/model.zip": "download the folder, and write its path",
    "s3://bucket/model": "download the folder, and write its path",
    f"hf-hub:{VIT}": WRITE_VIT,
    f"hf_hub:timm/{TIMM}": f"write 'timm/{TIMM}'",
    f"hf://{VIT}": WRITE_VIT,
    f"HF/{VIT}": f"write 'hf/{VIT}'",
    f"hf/{VIT}/": f"write 'hf/{VIT}'",
    f"transformers/{VIT}": f"write 'hf/{VIT}'",
    f"transformers:{VIT}": f"write 'hf/{VIT}'",
    f"timm/hf-hub:timm/{TIMM}": f"write 'timm/{TIMM}'",
    f"timm/timm/{TIMM}": f"write 'timm/{TIMM}'",
    f"hf/timm/{TIMM}": f"write 'timm/{TIMM}'",
    f"timm:{TIMM}": f"write 'timm/{TIMM}'",
    f"Timm/{TIMM}": f"write 'timm/{TIMM}'",
    TIMM: f"write 'timm/{TIMM}'",
    "open-clip:ViT-B-32": "write 'open_clip/ViT-B-32'",
    "open-clip/ViT-B-32:openai": "write 'open_clip/ViT-B-32:openai'",
    "open_clip/hf-hub:laion/CLIP-x": "write 'open_clip/laion/CLIP-x'",
    "ViT-B-32": "write 'open_clip/ViT-B-32'",
    "digits": "write 'mice/digits'",
    "Mice/digits": "write 'mice/digits'",
    "lab/tiny/": "write 'lab/tiny'",
    " lab/tiny ": "write 'lab/tiny'",
    "'lab/tiny'": "write 'lab/tiny'",
    "local-dir:/models/vit": "write '/models/vit'",
    "file:///models/vit": "write '/models/vit'",
    r"C:\models\vit": "there is no such folder on this machine",
    "D:/models/vit": "there is no such folder on this machine",
    r"models\vit": "there is no such folder on this machine",
    "": "it is empty",
    "  ": "it is empty",
}


@pytest.mark.parametrize("ref", OTHERS)
def test_it_is_told_what_to_write(ref: str) -> None:
    for call in (expect_spelling, prisma.load):
        with pytest.raises(PrismaError) as error:
            call(ref)
        assert str(error.value).startswith(f"expected {FORMS}; found {ref!r}")
        assert OTHERS[ref] in str(error.value)


@pytest.mark.parametrize(
    "ref",
    [
        "lab/tiny",
        VIT,
        f"hf/{VIT}",
        f"timm/{TIMM}",
        "open_clip/ViT-B-32:openai",
        "mice/digits",
        "hf/",
        "a/b/c",
        "no_such",
    ],
)
def test_what_may_be_right_passes(ref: str) -> None:
    expect_spelling(ref)


MEANT = {
    "OpenCLIP/ViT-B-32": "write 'open_clip/ViT-B-32'",
    "mouse/digits": "write 'mice/digits'",
    "prisma/digits": "write 'mice/digits'",
    "hub/x": "write 'hf/x'",
    "huggingface/x": "write 'hf/x'",
    "transformers/x": "write 'hf/x'",
    "lab/tiny": "a model of transformers is written hf/lab/tiny",
}
"""What may be the name of a published mouse -> what is hinted at if there is none."""


@pytest.mark.parametrize("ref", MEANT)
def test_any_owner_is_loaded_and_what_may_be_meant_is_hinted_at_only_if_there_is_no_such_repository(
    ref: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "_HUB", downloads._Hub())
    with serving(monkeypatch, tmp_path / "full", {ref: MICE / "digits"}):
        assert prisma.load(ref).labels == tuple("0123456789")
    monkeypatch.setattr(downloads, "_HUB", downloads._Hub())
    with serving(monkeypatch, tmp_path / "empty", {}), pytest.raises(PrismaError) as error:
        prisma.load(ref)
    assert str(error.value).startswith(f"{ref} at main is not on the Hub; if it is private")
    assert f"there is no folder {ref} here either" in str(error.value)
    assert str(error.value).endswith(MEANT[ref])


@pytest.mark.parametrize(
    ("ref", "sentence"),
    [
        (
            "runs/a/b",
            r"^there is no folder 'runs/a/b' here, and it is no name on the Hub: .* has 3 parts instead of two",
        ),
        ("my run/x", r"^there is no folder 'my run/x' here, and it is no name on the Hub: .* has a space in it"),
        ("half\ud800/x", r"^there is no folder 'half\\ud800/x' here, and it is no name on the Hub: .* which has '"),
        ("./x", r"^expected a checkpoint folder with config.json at x; found no such folder$"),
        (Path("runs/x"), r"^expected a checkpoint folder with config.json at runs/x; found no such folder$"),
        ("~/no such/x", r"^expected a checkpoint folder with config.json at /.*/no such/x; found no such folder$"),
        ("/" + "x" * 5_000, r"^expected a checkpoint folder with config.json at .*; found no such folder$"),
        ("~nobody-here/x", r"^expected a path that a file can have; found '~nobody-here/x': there is no such user$"),
        (Path("half\ud800"), r"^expected a path that a file can have; found .*: it has half of a character"),
        ("./\0", r"^expected a path that a file can have; found './\\x00': it has a NUL character$"),
        ("my_run", r"found 'my_run', and there is no such folder here$"),
    ],
)
def test_a_missing_folder_is_said_to_be_missing(ref: str | Path, sentence: str) -> None:
    with pytest.raises(PrismaError, match=sentence):
        prisma.load(ref)
