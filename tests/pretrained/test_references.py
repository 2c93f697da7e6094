"""A reference in another spelling is told how it is written."""

import pytest

import prisma
from prisma.errors import PrismaError
from prisma.pretrained.references import FORMS, expect_spelling

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
    "OpenCLIP/ViT-B-32": "write 'open_clip/ViT-B-32'",
    "open_clip/hf-hub:laion/CLIP-x": "write 'open_clip/laion/CLIP-x'",
    "ViT-B-32": "write 'open_clip/ViT-B-32'",
    "digits": "write 'mice/digits'",
    "mouse/digits": "write 'mice/digits'",
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
