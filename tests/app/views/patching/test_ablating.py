"""Ablation of any heads: for one head, the library's mean ablation."""

from collections.abc import Callable

import pytest
import torch
from prisma_app.library import Library, Scene
from prisma_app.state import State
from prisma_app.views.patching import view
from prisma_app.views.patching.ablating import ablated, heads_of, mean_values

from prisma.analysis.patching.ablation import ablation
from prisma.edits import Set
from prisma.errors import PrismaError
from prisma.metrics import Logit
from prisma.runs import record, run


def test_one_head_is_the_librarys_mean_ablation(scene: Callable[..., Scene]) -> None:
    some = scene(ablate="1.2")
    images, _ = some.subject.probe() or (torch.empty(0), None)
    model = some.loaded.model
    expected = ablation(model, images, "attn.z", Logit(3), by="mean").values[:, 1, 2]
    heads = {1: [2]}
    with torch.no_grad():
        found = ablated(model, images, mean_values(model, images, heads), heads)[:, 3]
    torch.testing.assert_close(found, expected)


def test_many_heads_hold_the_means_of_the_unchanged_model(scene: Callable[..., Scene]) -> None:
    some = scene(img="6", ablate="0.1,1.0,0.3")
    model, (images, labels) = some.loaded.model, some.subject.probe() or (torch.empty(0), torch.empty(0))
    sites = ["blocks.0.attn.z", "blocks.1.attn.z"]
    with torch.no_grad():
        _, acts = record(model, images, sites)
        edits = {
            site: Set(acts[site].mean(0, keepdim=True).expand(len(images), -1, -1, -1)).at(head=chosen)
            for site, chosen in zip(sites, ([1, 3], [0]), strict=True)
        }
        after, before = run(model, images, edits), model(images)
    facts = view(some, 2).facts
    accuracy = {
        name: (x.argmax(-1) == labels).double().mean().item() for name, x in (("before", before), ("after", after))
    }
    assert facts["accuracy"] == {**accuracy, "n": len(labels)}
    assert facts["heads"] == [[0, 1], [0, 3], [1, 0]]
    for entry in facts["classes"]:  # of image 6, which is one of the test images
        assert entry["logits"] == pytest.approx(
            [before[6, entry["class"]].item(), after[6, entry["class"]].item()], abs=1e-4
        )


def test_without_test_images_the_examples_are_the_reference(vit_library: Library) -> None:
    scene = vit_library.scene(State.of({"ablate": "1.1"}))
    facts = view(scene, 2).facts
    assert facts["accuracy"] is None
    assert facts["reference"] == f"{len(scene.subject.examples())} example images"


def test_heads_are_read_once_and_in_order(scene: Callable[..., Scene]) -> None:
    assert heads_of("1.3,0.2,1.0,0.2", scene().config) == {0: [2], 1: [0, 3]}


@pytest.mark.parametrize("text", ["", "1", "1.2,", "1.2;0.1", "a.b", "1.2.3", "-1.0", "٣.1"])
def test_other_text_is_refused(scene: Callable[..., Scene], text: str) -> None:
    with pytest.raises(PrismaError, match=r"LAYER\.HEAD"):
        heads_of(text, scene().config)


@pytest.mark.parametrize("text", ["2.0", "0.4", "0.0,9999.1"])
def test_heads_that_are_not_there_are_refused(scene: Callable[..., Scene], text: str) -> None:
    with pytest.raises(PrismaError, match="layers from 0 to 1 and heads from 0 to 3; found layer"):
        heads_of(text, scene().config)
