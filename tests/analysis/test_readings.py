"""Arithmetic with numbers that are read from a run."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import prisma
from prisma.analysis.attention.token_grid import TokenGrid
from prisma.analysis.readings import MAP, Activations, Objective, Product, Reading, Sum, features_at, named_axes
from prisma.errors import PrismaError
from prisma.features import Channel, Neuron
from prisma.sites import axes_of

A, B = Neuron("logits", 0), Neuron("logits", 1)
ACTS = {"logits": torch.tensor([[2.0, 3.0], [-1.0, 0.5]])}
a, b = ACTS["logits"].T


@pytest.mark.parametrize(
    ("made", "value"),
    [
        (A + B, a + b), (A - B, a - b), (2 * A, 2 * a), (A * 2.5, 2.5 * a), (-A, -a), (A / 4, a / 4),
        (A * B, a * b), (A * A, a * a), (A + A, 2 * a), (3 - A, 3 - a), (A + 1, a + 1),
        (1 + A * B - 0.5 * B, 1 + a * b - 0.5 * b),
        ((A + B) * (A - B), a * a - b * b), (-(A + B), -a - b), (A - (B - A), 2 * a - b),
    ],
)  # fmt: skip
def test_every_part_counts_once(made: Objective, value: torch.Tensor) -> None:
    assert torch.allclose(made.value(ACTS), value)
    assert set(made.reads) == {"logits"} and isinstance(made, Reading) and made.per_image


@dataclass(frozen=True)
class Foreign:
    """A reading of somebody else, without arithmetic of its own."""

    reads: tuple[str, ...] = ("logits",)
    tokens: tuple[int, ...] = ()

    def value(self, acts: Any) -> torch.Tensor:
        return acts["logits"][:, 0]


def test_readings_of_others_combine_with_ours() -> None:
    made = B - Foreign()
    assert torch.allclose(made.value(ACTS), b - a) and made.bound(None) == made  # type: ignore[arg-type]


@settings(max_examples=50, deadline=None)
@given(st.recursive(st.sampled_from([0, 1]), lambda x: st.tuples(st.sampled_from("+-*"), x, x), max_leaves=8))
def test_any_expression_is_what_it_says(tree: Any) -> None:
    def made(node: Any, leaves: Any) -> Any:
        if isinstance(node, int):
            return leaves[node]
        left, right = (made(x, leaves) for x in node[1:])
        return left + right if node[0] == "+" else left - right if node[0] == "-" else left * right

    exact = {"logits": ACTS["logits"].double()}
    assert torch.allclose(made(tree, (A, B)).value(exact), made(tree, tuple(exact["logits"].T)))


def test_values_compare_and_print() -> None:
    assert A + B == A + B and A + B != A - B and Sum((A, B)) != Product((A, B)) and hash(A * B) == hash(A * B)
    assert "Neuron(site='logits', index=0" in repr(A - B)


@pytest.mark.parametrize("wrong", ["text", None, True, [1]])
def test_what_is_no_objective_is_refused(wrong: Any) -> None:
    with pytest.raises(PrismaError, match="expected an objective or a number; found"):
        _ = A + wrong
    with pytest.raises(PrismaError, match="expected to divide an objective by a number that is not 0; found 0"):
        _ = A / 0


def test_positions_are_those_of_the_tokens() -> None:
    grid = TokenGrid(True, 1, (1, 2, 2))
    x = torch.arange(12.0).view(1, 6, 2)
    site = "blocks.0.resid_post"
    acts = Activations({site: x}, {site: axes_of(site)}, grid)
    found = {w: features_at(acts, site, w)[0, :, 0].tolist() for w in ("patches", "class", "registers", "all", 3, -1)}
    assert found == {
        "patches": [4, 6, 8, 10], "class": [0], "registers": [2], "all": [0, 2, 4, 6, 8, 10], 3: [6], -1: [10],
    }  # fmt: skip
    heads = torch.arange(24.0).view(1, 6, 2, 2)
    of_heads = Activations({"blocks.0.attn.z": heads}, {"blocks.0.attn.z": axes_of("blocks.0.attn.z")}, grid)
    assert features_at(of_heads, "blocks.0.attn.z", "class", head=1).tolist() == [[[2, 3]]]
    for arguments, message in {
        ("patches", None): "and a head where it has heads",
        ("patches", 2): "expected a head of blocks.0.attn.z below 2; found 2",
        (6, 0): "expected a position of blocks.0.attn.z below 6; found 6",
        ("middle", 0): "expected a role of tokens",
    }.items():
        with pytest.raises(PrismaError, match=message):
            features_at(of_heads, "blocks.0.attn.z", *arguments)  # type: ignore[arg-type]


def test_a_map_of_a_convolution_has_positions_in_raster_order() -> None:
    x = torch.arange(12.0).view(1, 3, 2, 2)
    acts = Activations({"conv": x}, {"conv": MAP})
    assert torch.equal(named_axes(acts, "conv")[0][0], torch.tensor([[0.0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 11]]))
    assert Neuron("conv", 1, token=2).value(acts).tolist() == [6] and Channel("conv", 1).value(acts).tolist() == [5.5]
    with pytest.raises(PrismaError, match="expected positions that conv has; found 'class'"):
        features_at(acts, "conv", "class")


def test_activations_split_into_parts() -> None:
    acts = Activations({"logits": torch.arange(6.0).view(3, 2)}, {"logits": ("batch", "class")})
    parts = acts.split(2)
    assert (
        [x["logits"].tolist() for x in parts] == [[[0, 1], [2, 3]], [[4, 5]]]
        and len(acts) == 1
        and list(acts) == ["logits"]
    )


def test_an_objective_is_a_target_of_attribution() -> None:
    loaded = prisma.load("mice/digits")
    images = torch.zeros(2, *loaded.config.input_shape)
    both = Neuron("blocks.0.mlp.post", 1) - 2 * Neuron("blocks.1.mlp.post", 3)
    found = prisma.attribute(loaded.model, images, both, "occlusion")
    acts = prisma.record(loaded.model, images, ["blocks.*.mlp.post"])[1]
    assert torch.allclose(found.value, both.value(acts), atol=1e-6)
