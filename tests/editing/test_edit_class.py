import pytest
import torch

from prisma.config import ViTConfig
from prisma.editing.edit_class import METHODS, edit_class
from prisma.editing.measuring import measure_edit
from prisma.editing.mlp_edit import Search
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


def test_each_method_makes_an_edit_that_says_so_and_other_settings_are_refused(digits) -> None:
    assert set(METHODS) == {"rank-one", "multi-key", "class-row", "head-edit", "steering", "fine-tuning"}
    quick = {
        "fine-tuning": {"steps": 1},
        "rank-one": {"search": Search(steps=1)},
        "multi-key": {"search": Search(steps=1)},
    }
    for method in METHODS:
        edit = edit_class(*digits.train, 3, 8, method=method, keys=4, seed=5, **quick.get(method, {}))
        assert edit.about["method"] == method and edit.about["seed"] == 5 and len(edit.about["rows"]) == 4
    with pytest.raises(PrismaError, match="settings that steering has: layer, enough; found ridge"):
        edit_class(*digits.train, 3, 8, method="steering", ridge=0.1)


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
    with pytest.raises(
        PrismaError, match="a method: rank-one, multi-key, class-row, head-edit, steering, fine-tuning; found 'rome'"
    ):
        edit_class(model, images, labels, 3, 4, method="rome")
    with pytest.raises(PrismaError, match="coverage of 800 images by their objects"):
        edit_class(model, images, labels, 3, 4, role="object")
    features = build(
        ViTConfig(image_size=8, patch_size=2, channels=1, n_layers=1, d_model=8, n_heads=1, d_mlp=8, n_classes=0)
    )
    with pytest.raises(PrismaError, match="a model with classes; found n_classes=0"):
        edit_class(features, images, labels, 3, 4)
