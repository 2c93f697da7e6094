"""Directions of heads: whole matrices have the same singular vectors."""

from pathlib import Path
from typing import Any

import pytest
import torch

from prisma import PrismaError, circuits
from prisma.analysis.class_space.class_embeddings import class_embeddings
from prisma.analysis.weights.head_directions import HeadDirections, head_directions
from tests.variants import model_of


@pytest.mark.parametrize("circuit", ["ov", "qk"])
@pytest.mark.parametrize("variant", ["base", "norm_res_post", "wide_heads", "divided", "siglip"])
def test_directions_are_the_singular_vectors_of_whole_matrices(variant: str, circuit: str) -> None:
    model = model_of(variant)
    found = head_directions(model, circuit, top=None)
    for i, place in enumerate(circuits.attentions(model.config)):
        whole = (circuits.ov if circuit == "ov" else circuits.qk)(model, *place, ln="folded").detach()
        again = torch.einsum("hr,hrm,hrn->hmn", found.values[i], found.left[i], found.right[i])
        torch.testing.assert_close(again, whole)
        n = found.values.shape[-1]
        torch.testing.assert_close(found.values[i], torch.linalg.svdvals(whole)[:, :n])
    for side in (found.left, found.right):
        torch.testing.assert_close(
            side @ side.mT, torch.eye(side.shape[-2], dtype=torch.float64).expand(*side.shape[:2], -1, -1)
        )
    assert (found.right.gather(-1, found.right.abs().argmax(-1, keepdim=True)) > 0).all()
    if variant == "siglip":
        assert found.classes_left is None
    else:
        assert found.classes_right is not None
        embedding = class_embeddings(model).detach()
        torch.testing.assert_close(found.classes_right[0, 1, 0], embedding @ found.right[0, 1, 0])
    first = head_directions(model, circuit, top=2)
    assert torch.equal(first.left, found.left[:, :, :2])


def test_results_survive_a_file_and_panels_have_names(tmp_path: Path) -> None:
    directions = head_directions(model_of("attention_only"))
    assert torch.equal(HeadDirections.from_npz(directions.to_npz(tmp_path / "d.npz")).left, directions.left)
    panels = directions.plot().axes[:2]
    assert [panel.get_title(loc="left") for panel in panels] == ["blocks.0.attn", "blocks.1.attn"]


@pytest.mark.parametrize(
    ("variant", "call", "message"),
    [
        ("no_layers", head_directions, "found n_layers=0"),
        ("qk_norm", lambda m: head_directions(m, "qk"), "qk_norm=False"),
        ("base", lambda m: head_directions(m, "vo"), "expected the circuit ov or qk"),
        ("base", lambda m: head_directions(m, top=0), "at least one direction"),
    ],
)
def test_what_cannot_be_done_is_said(variant: str, call: Any, message: str) -> None:
    with pytest.raises(PrismaError, match=message):
        call(model_of(variant))
