"""What is loaded is used as any model of Prisma's: a case of each family is recorded, edited, swept, saved and read."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import prisma
from prisma.analysis.lens.logit_lens import logit_lens
from prisma.analysis.patching.activation_patching import sweep
from prisma.checkpoint import write_checkpoint
from prisma.edits import Zero
from prisma.pretrained.families import FAMILIES, family_of
from prisma.pretrained.parity import random_inputs, randomise
from prisma.runs import record, run
from tests.pretrained.open_clip.test_loading import pair
from tests.pretrained.timm import cases as cases_timm
from tests.pretrained.transformers import cases_clip, cases_images, cases_video

TRANSFORMERS = {**cases_images.CASES, **cases_clip.CASES, **cases_video.CASES}
CASES: Mapping[str, Callable[[], nn.Module]] = {
    "timm VisionTransformer": partial(cases_timm.build, "vit_small_patch16_36x1_224"),
    "timm Eva": partial(cases_timm.build, "eva02_tiny_patch14_224"),
    "open_clip VisionTransformer": lambda: pair().visual,
    "open_clip CLIP": pair,
    "ViT": TRANSFORMERS["vit_classes"],
    "DeiT": TRANSFORMERS["deit_teacher"],
    "DINOv2": TRANSFORMERS["dinov2_classes"],
    "DINOv2 with registers": TRANSFORMERS["dinov2_registers_classes"],
    "DINOv3": TRANSFORMERS["dinov3"],
    "MAE": TRANSFORMERS["mae"],
    "MSN": TRANSFORMERS["msn_classes"],
    "I-JEPA": TRANSFORMERS["ijepa_classes"],
    "BEiT": TRANSFORMERS["beit_everything"],
    "Data2Vec": TRANSFORMERS["data2vec_classes"],
    "AIMv2": TRANSFORMERS["aimv2_biases"],
    "CLIP": TRANSFORMERS["CLIPModel"],
    "MetaCLIP 2": TRANSFORMERS["MetaClip2ForImageClassification"],
    "SigLIP": TRANSFORMERS["SiglipForImageClassification"],
    "SigLIP 2": TRANSFORMERS["Siglip2Model"],
    "OWL-ViT": TRANSFORMERS["OwlViTModel"],
    "OWLv2": TRANSFORMERS["Owlv2Model"],
    "ViViT": TRANSFORMERS["VivitForVideoClassification"],
    "VideoMAE": TRANSFORMERS["VideoMAEForVideoClassification"],
    "TimeSformer": TRANSFORMERS["TimesformerForVideoClassification"],
    "V-JEPA 2": TRANSFORMERS["VJEPA2Model"],
}
"""Family -> a small module of it."""


def test_there_is_a_case_of_each() -> None:
    adapters = {"open_clip TimmModel"}  # a timm trunk, which stands above
    assert set(CASES) == {family.name for family in FAMILIES} - adapters


def first(logits: Tensor) -> Tensor:
    return logits[:, 0]


@torch.no_grad()
@pytest.mark.parametrize("name", CASES)
def test_a_case_of_each_family(name: str, tmp_path: Path) -> None:
    module = CASES[name]()
    randomise(module)
    assert family_of(module).name == name
    model = prisma.load(module).model
    images = random_inputs(model.config)
    logits, acts = record(model, images, "blocks.*.attn.z")
    assert torch.equal(run(model, images), logits)
    assert len(acts) == model.config.n_layers
    assert not torch.allclose(run(model, images, {"blocks.*.attn.z": Zero()}), logits)
    effect = sweep(model, images, images.flip(0), "attn.z", first)
    assert effect.shape == (model.config.n_layers, model.config.n_heads)
    if model.config.n_classes:
        torch.testing.assert_close(logit_lens(model, images).readout[:, -1], logits)
    write_checkpoint(tmp_path / "saved", model)
    again = prisma.load(tmp_path / "saved").model
    assert again.config == model.config
    assert torch.equal(again(images), logits)
