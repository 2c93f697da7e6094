import pytest
import torch

import prisma
from prisma.config import ViTConfig
from prisma.editing.edit_class import Search, edit_class
from prisma.editing.edited_runs import EditedRuns
from prisma.editing.keys import covariances
from prisma.editing.measuring import measure_edit
from prisma.editing.weight_edit import source_of
from prisma.errors import PrismaError
from prisma.vit import build


@pytest.mark.parametrize(("method", "layer"), [("rank-one", 1), ("multi-key", 1), ("rank-one", 0)])
def test_unseen_images_of_the_class_change_and_others_do_not(digits, method: str, layer: int) -> None:
    before = source_of(digits.loaded.model)
    edit = edit_class(*digits.train, "3", "8", layer=layer, method=method, names=digits.loaded.labels)
    assert source_of(digits.loaded.model) == before
    measures = measure_edit(
        digits.loaded.model, edit, digits.test_images, digits.test_labels, 3, 8,
        key_images=digits.images[list(edit.about["rows"])],
    )  # fmt: skip
    assert measures.success.value > 0.9
    assert measures.generalisation.value > 0.8
    assert measures.locality.value > 0.9
    assert edit.about["from"] == {"class": 3, "name": "3"}
    assert edit.parts[0].u.shape[1] == edit.about["keys"] == (1 if method == "rank-one" else 64)
    assert edit.about["losses"][-1] < edit.about["losses"][0]


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


def test_what_cannot_be_edited_is_said(digits) -> None:
    model, images, labels = digits.train
    named = {"names": ("zero", "one", "two", "three", *map(str, range(4, 10)))}
    with pytest.raises(PrismaError, match="found 'thre'; the nearest: three"):
        edit_class(model, images, labels, "thre", "one", **named)
    with pytest.raises(PrismaError, match="two classes that differ; found 'one' twice"):
        edit_class(model, images, labels, "one", 1, **named)
    with pytest.raises(PrismaError, match="images of the class 3; found none among 800"):
        edit_class(model, images, torch.zeros_like(labels), 3, 4)
    with pytest.raises(PrismaError, match="a layer from 0 to 1; found 2"):
        edit_class(model, images, labels, 3, 4, layer=2)
    with pytest.raises(PrismaError, match="a class from 0 to 9; found 10"):
        edit_class(model, images, labels, 3, 10)
    with pytest.raises(PrismaError, match="a method: rank-one, multi-key; found 'rome'"):
        edit_class(model, images, labels, 3, 4, method="rome")
    with pytest.raises(PrismaError, match="coverage of 800 images by their objects"):
        edit_class(model, images, labels, 3, 4, role="object")
    features = build(
        ViTConfig(image_size=8, patch_size=2, channels=1, n_layers=1, d_model=8, n_heads=1, d_mlp=8, n_classes=0)
    )
    with pytest.raises(PrismaError, match="a model with classes; found n_classes=0"):
        edit_class(features, images, labels, 3, 4)


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
