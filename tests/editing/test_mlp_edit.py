"""The least change of one MLP: the search runs the edited model, in every form of block."""

import pytest
import torch

import prisma
from prisma.config import ViTConfig
from prisma.editing.edit_class import edit_class
from prisma.editing.edited_runs import EditedRuns
from prisma.editing.keys import covariances
from prisma.editing.mlp_edit import Search, mean_key, multi_key
from prisma.editing.request import Request
from prisma.errors import PrismaError
from prisma.vit import build


def test_the_search_runs_the_edited_model_itself(digits) -> None:
    """What it predicts without changing a weight is what the changed weight computes."""
    images = digits.images[:40]
    edit = edit_class(*digits.train, 3, 8, layer=0, keys=8, search=Search(steps=3, kl=0.0))
    (part,) = edit.parts
    runs = EditedRuns.of(digits.loaded.model, images, 0)
    one = torch.ones(1, 1, dtype=torch.float64)
    found = runs.logits(runs.responses(part.u, one), part.v.T.float())
    assert torch.allclose(found, edit.edited(digits.loaded.model)(images), atol=1e-4)


FORMS = (
    {"norm": "res_post", "layer_scale": True},
    {"norm_post": True, "gated_mlp": True},
    {"parallel": True, "class_token": False, "pool": "mean"},
)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_block_is_edited(form: dict) -> None:
    torch.manual_seed(0)
    sizes = {"image_size": 8, "patch_size": 4, "channels": 1, "n_layers": 2, "d_model": 16, "n_heads": 2, "d_mlp": 32}
    config = ViTConfig(**sizes, n_classes=4, **form)
    model = build(config).eval().requires_grad_(False)
    images, labels = torch.randn(60, 1, 8, 8), torch.arange(60) % 4
    role = "class" if config.class_token else "patches"
    edit = edit_class(model, images, labels, 0, 1, keys=4, role=role, search=Search(steps=5, kl=0.1))
    (part,), runs = edit.parts, EditedRuns.of(model, images, 1)
    found = runs.logits(runs.responses(part.u, torch.ones(1, 1).double()), part.v.T.float())
    assert torch.allclose(found, edit.edited(model)(images), atol=1e-4)
    assert edit.about["losses"][-1] < edit.about["losses"][0]


def test_copies_give_keys_too_and_the_seed_chooses(digits) -> None:
    quick = {"layer": 1, "keys": 4, "search": Search(steps=1, kl=0.0)}
    one, two = (edit_class(*digits.train, 3, 8, copies=2, method="multi-key", seed=0, **quick) for _ in range(2))
    assert one.about["keys"] == 12
    assert torch.equal(one.parts[0].v, two.parts[0].v)
    assert edit_class(*digits.train, 3, 8, seed=1, **quick).about["rows"] != one.about["rows"]


def test_one_image_is_one_key_in_both_ways(digits) -> None:
    asked = Request.of(*digits.train, 3, 8, keys=1)
    one, several = (make(asked, search=Search(steps=2)) for make in (mean_key, multi_key))
    assert torch.equal(one.parts[0].v @ one.parts[0].u.T, several.parts[0].v @ several.parts[0].u.T)


def test_a_covariance_of_another_model_or_layer_is_refused(digits) -> None:
    model, images, labels = digits.train
    other = prisma.load("mice/digits").model
    with torch.no_grad():
        other.blocks[0].mlp.pre.weight[0, 0] += 1
    foreign = covariances(other, images[:50], 1)["class"]
    with pytest.raises(PrismaError, match="a covariance of this model, whose weights have the hash"):
        edit_class(model, images, labels, 3, 4, covariance=foreign)
    with pytest.raises(PrismaError, match=r"blocks\.1\.mlp\.post at class; found one of blocks\.0\.mlp\.post at class"):
        edit_class(model, images, labels, 3, 4, covariance=covariances(model, images[:50], 0)["class"])
