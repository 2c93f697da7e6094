import pytest
import torch

from prisma.editing.edit_class import edit_class
from prisma.editing.measuring import measure_edit
from prisma.editing.weight_edit import source_of
from prisma.errors import PrismaError


def measured(digits, edit):
    assert edit.about["model"] == source_of(digits.loaded.model)
    return measure_edit(digits.loaded.model, edit, digits.test_images, digits.test_labels, 3, 8)


def test_the_row_of_the_target_answers_for_the_class(digits) -> None:
    edit = edit_class(*digits.train, 3, 8, method="class-row")
    (part,) = edit.parts
    assert part.weight == "readout.head.weight"
    assert bool((part.v[[i for i in range(10) if i != 8]] == 0).all())  # only one row
    found = measured(digits, edit)
    assert found.generalisation.value > 0.8 and found.locality.value > 0.8


def test_heads_forget_the_class_by_the_weights_of_these_heads_alone(digits) -> None:
    edit = edit_class(*digits.train, 3, 8, method="head-edit", heads=3)
    assert len(edit.about["heads"]) == 3
    for part in edit.parts:
        layer = int(part.weight.split(".")[1])
        columns = [head for at, head in edit.about["heads"] if at == layer]
        changed = part.u.view(4, 16, -1).abs().sum((1, 2)) > 0
        assert changed.nonzero()[:, 0].tolist() == sorted(columns)
    found = measured(digits, edit)
    assert found.forgotten.value > 0.5


def test_steering_is_the_difference_of_means_for_every_image(digits) -> None:
    edit = edit_class(*digits.train, 3, 8, method="steering")
    found = measured(digits, edit)
    assert found.generalisation.value > 0.8
    assert found.locality.value < measured(digits, edit_class(*digits.train, 3, 8, method="class-row")).locality.value
    x = digits.test_images[:7]
    model = digits.loaded.model
    moved = edit.edited(model).encode(model.embed(x)) - model.encode(model.embed(x))
    assert torch.allclose(moved, edit.parts[0].v[:, 0].float().expand_as(moved), atol=1e-4)


def test_fine_tuning_stays_in_its_box(digits) -> None:
    edit = edit_class(*digits.train, 3, 8, method="fine-tuning", box=0.3)
    (part,) = edit.parts
    size = digits.loaded.model.blocks[1].mlp.out.weight.square().mean().sqrt()
    assert (part.v @ part.u.T).abs().max() <= 0.3 * size * 1.001
    free = measured(digits, edit_class(*digits.train, 3, 8, method="fine-tuning", box=None))
    assert free.generalisation.value > 0.9
    assert all(x.grad is None for x in digits.loaded.model.parameters())
    with pytest.raises(PrismaError, match="steps, lr and box above 0"):
        edit_class(*digits.train, 3, 8, method="fine-tuning", box=0.0)
