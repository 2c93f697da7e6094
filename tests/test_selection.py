"""Parts of a tensor, and values matched with their axes, against loops over single numbers."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import prisma
from prisma import Add, PrismaError, Scale, Set, Zero
from prisma.selection import Part, frozen
from prisma.sites import FEATURES, SITES
from tests.variants import images_of, model_of

SHAPES = sorted(set(SITES.values()))


@st.composite
def parts(draw: st.DrawFn) -> tuple[Tensor, tuple[str, ...], dict[str, Any], dict[str, list[int]]]:
    """A site with axes of equal lengths or not, indices of some of its axes, and for each axis the rows they mean."""
    axes = draw(st.sampled_from(SHAPES))
    shape = [draw(st.sampled_from((2, 2, 3))) for _ in axes]
    where: dict[str, Any] = {}
    for axis, n in zip(axes, shape, strict=True):
        one = st.integers(-n, n - 1)
        several = st.sets(st.integers(0, n - 1), min_size=1).map(sorted)
        slices = st.tuples(st.integers(0, n - 1), st.integers(1, 2)).map(lambda ends: slice(ends[0], None, ends[1]))
        index = draw(st.one_of(st.none(), one, several, slices))
        if index is not None:
            where[axis] = index
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = {
        a: np.atleast_1d(np.arange(n)[where.get(a, slice(None))]).tolist() for a, n in zip(axes, shape, strict=True)
    }
    return x, axes, where, rows


def one_by_one(edit: str, x: Tensor, axes: tuple[str, ...], rows: dict[str, list[int]], value: Any) -> Tensor:
    """The edit of every number of the part; `value` is a function of the axes' indices in the site."""
    result = x.clone()
    for at in product(*(rows[axis] for axis in axes)):
        v = value(dict(zip(axes, at, strict=True)))
        result[at] = {"Set": v, "Add": x[at] + v, "Scale": x[at] * v}[edit]
    return result


@settings(max_examples=150, deadline=None)
@given(parts(), st.data())
def test_values_are_matched_by_the_names_of_their_axes(place: Any, data: st.DataObject) -> None:
    x, axes, where, rows = place
    left = [axis for axis in axes if not isinstance(where.get(axis), int)]
    kinds = ["number", "site", "part", "repeated"] + ["features"] * (left[-1:] != [] and left[-1] in FEATURES)
    kind, name = data.draw(st.sampled_from(kinds)), data.draw(st.sampled_from(("Set", "Add", "Scale")))
    named = axes if kind == "site" else left[-1:] if kind == "features" else [] if kind == "number" else left
    whole = dict(zip(axes, x.shape, strict=True))
    sizes = [whole[axis] if kind == "site" else len(rows[axis]) for axis in named]
    if kind == "repeated":
        sizes = [
            n if axis == "batch" else data.draw(st.sampled_from((1, n))) for axis, n in zip(named, sizes, strict=True)
        ]
    value = torch.randn(sizes, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def entry(at: dict[str, int]) -> Tensor:
        place = [at[axis] if kind == "site" else rows[axis].index(at[axis]) for axis in named]
        return value[tuple(i if n > 1 else 0 for i, n in zip(place, sizes, strict=True))]

    edit = {"Set": Set, "Add": Add, "Scale": Scale}[name](value)
    if kind == "features" and sizes[0] in [len(rows[axis]) for axis in left[:-1]]:  # one axis, which may be another
        for unclear in (Scale(value), Set(7.0).where(value > 0)):
            with pytest.raises(PrismaError, match="whose axis is clear"):
                unclear.at(**where)(x, axes)
        edit, name = Add(value), "Add"
        assert torch.equal(edit.at(**where)(x, axes), one_by_one(name, x, axes, rows, entry))
        return
    changed = edit.at(**where)(x, axes)
    assert torch.equal(changed, one_by_one(name, x, axes, rows, entry)), (kind, where, sizes)
    mask = value > 0
    masked = Set(7.0).where(mask)
    changed = masked.at(**where)(x, axes)
    only = one_by_one("Set", x, axes, rows, lambda at: 7.0 if entry(at) > 0 else x[tuple(at.values())])
    assert torch.equal(changed, only)


SIZES = {"batch": (3,), "token": (1, 3), "head": (1, 3), "d_head": (1, 3)}
"""Sizes of the axes of a value for a site of three images, tokens, heads and features."""


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 3), max_size=4), st.integers(0, 4))
def test_every_other_shape_is_refused_whatever_its_sizes(shape: list[int], case: int) -> None:
    site = tuple(SIZES)
    where, axes, sizes = (
        ({}, site, {}),
        ({"token": 0, "head": 2}, ("batch", "d_head"), {}),
        ({"head": [0, 2]}, site, {"head": (1, 2, 3)}),
        ({"d_head": 1}, ("batch", "token", "head"), {}),
        ({"batch": 1}, ("token", "head", "d_head"), {}),
    )[case]
    if axes != site and len(shape) == 4:  # the whole site, where a size of the axis without a name may be 1
        axes, sizes = site, dict.fromkeys(where, (1, 3))
    fits = not shape or (shape == [3] and axes[-1] == "d_head")
    if len(shape) == len(axes):
        fits |= all(n in (SIZES | sizes)[axis] for n, axis in zip(shape, axes, strict=True))
    edit = Set(torch.ones(shape)).at(**where)
    if fits:
        assert edit(torch.zeros(3, 3, 3, 3), site).any()
    else:
        with pytest.raises(PrismaError, match=r"expected a value (with the axes|for each of 3 images)"):
            edit(torch.zeros(3, 3, 3, 3), site)


def test_a_value_of_one_image_for_a_call_with_one_image_may_be_without_its_axis() -> None:
    axes = ("batch", "token", "d_model")
    value = torch.arange(6.0).view(3, 2)
    assert torch.equal(Set(value)(torch.zeros(1, 3, 2), axes)[0], value)
    with pytest.raises(PrismaError, match=r"expected a value with the axes.*; found \[3, 2\]"):
        Set(value)(torch.zeros(2, 3, 2), axes)


def test_a_slice_of_every_image_goes_to_its_own_image_and_head() -> None:
    """With as many images as heads, nothing but the names tells which axis is which."""
    model = model_of("base")
    n = model.config.n_heads
    images, others = images_of(model, n), images_of(model, n).flip(0)
    z = prisma.record(model, others, "blocks.0.attn.z")[1]["blocks.0.attn.z"]
    own = prisma.record(model, images, "blocks.0.attn.z")[1]["blocks.0.attn.z"]
    by_hand = own.clone()
    for i in range(n):
        by_hand[i, 0, 1] = z[i, 0, 1]
    expected = prisma.run(model, images, {"blocks.0.attn.z": Set(by_hand)})
    for edit in (Set(z[:, 0, 1]), Set(z)):
        found = prisma.run(model, images, {"blocks.0.attn.z": edit.at(token=0, head=1)})
        assert torch.equal(found, expected)
    one = {"blocks.0.attn.z": Set(z[:1])}
    with pytest.raises(PrismaError, match=rf"for each of {n} images; found one for one.*value\.expand\({n}, "):
        prisma.run(model, images, one)
    wanted = by_hand.copy_(z[:1].expand_as(z))
    torch.testing.assert_close(
        prisma.run(model, images, {"blocks.0.attn.z": Set(z[:1].expand(n, -1, -1, -1))}),
        prisma.run(model, images, {"blocks.0.attn.z": Set(wanted)}),
    )


AXES = ("batch", "token", "head", "d_head")
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "past the end": ({"token": slice(1, 9)}, "a slice of token that selects some of 0 to 2; found 1:9"),
    "nothing": ({"token": slice(2, 2)}, "selects some of 0 to 2; found 2:2"),
    "backwards": ({"token": slice(0, 2, -1)}, "found 0:2:-1"),
    "one twice": ({"token": [0, 0]}, r"each index of token once; found \[0, 0\] of 3"),
    "one from both ends": ({"token": [2, -1]}, r"each index of token once; found \[2, -1\]"),
}


def test_indices_that_select_nothing_or_one_thing_twice_are_refused() -> None:
    for case, (where, sentence) in WRONG.items():
        with pytest.raises(PrismaError, match=sentence):
            prisma.Zero().at(**where)(torch.zeros(2, 3, 2, 2), AXES)
            pytest.fail(f"{case} is taken")
    for empty in ([], (), torch.tensor([], dtype=torch.int64), range(0)):
        with pytest.raises(PrismaError, match="at least one index of token; found none"):
            frozen("token", empty)


def test_an_order_that_could_mean_two_things_is_refused() -> None:
    value = torch.arange(3.0)[None, :, None].expand(2, 3, 2)
    axes = ("batch", "token", "d_model")
    with pytest.raises(PrismaError, match=r"ascending order with a value for all of token; found \[2, 1, 0\]"):
        Set(value).at(token=[2, 1, 0])(torch.zeros(2, 3, 2), axes)
    two = Set(value[:, :2]).at(token=[2, 0])(torch.full((2, 3, 2), 9.0), axes)  # in the order of the indices
    assert two[0, :, 0].tolist() == [1, 9, 0]


def test_each_axis_is_restricted_once() -> None:
    with pytest.raises(PrismaError, match="restrict each axis once; found head twice"):
        prisma.Zero().at(head=1).at(head=2)
    assert prisma.Zero().at(head=1).at(token=2) == prisma.Zero().at(token=2, head=1)


def test_a_part_is_read_and_written() -> None:
    x = torch.arange(24.0).view(2, 3, 4)
    part, axes = Part((("head", -1), ("token", (2, 0)))), ("batch", "token", "head")
    assert part.axes(axes) == ("batch", "token")
    assert torch.equal(part.read(x, axes), x[:, [2, 0], 3])
    changed = part.write(x, axes, torch.zeros(2, 2))
    assert (changed[:, [2, 0], 3] == 0).all()
    assert (changed != x).sum() == 4


def test_factors_and_masks_of_one_axis_are_refused_where_two_axes_have_its_size() -> None:
    x, axes = torch.randn(4, 3, 4), ("batch", "token", "d_model")
    for edit in (Scale(torch.ones(4)), Zero().where(torch.tensor([True, False, True, False]))):
        with pytest.raises(PrismaError, match=r"found \[4\], which may be batch or d_model: write all axes"):
            edit(x, axes)
    assert torch.equal(Add(torch.ones(4))(x, axes), x + 1)
    assert torch.equal(Scale(2 * torch.ones(4, 1, 1))(x, axes), 2 * x)
    assert torch.equal(Scale(2 * torch.ones(4))(x[:2], axes), 2 * x[:2])


HINTS = [
    # shape of the value, what the message ends with, for x [3, 4, 2, 5] = [batch, token, head, d_head]
    ((4, 2, 5), r"if it is meant for all images, use value\.expand\(3, \*value\.shape\)$"),
    ((3, 4), r"if its axes are batch and token, use value\[:, :, None, None\]$"),
    ((4,), r"use value\[None, :, None, None\]\.expand\(3, -1, -1, -1\), or \.at\(token=\.\.\.\) for some$"),
    ((3,), r"if its axes are batch, use value\[:, None, None, None\]$"),
    ((2, 5), r"if its axes are head and d_head, use value\[None, None, :, :\]\.expand\(3, -1, -1, -1\)$"),
    ((7,), r"found \[7\]$"),
]


@pytest.mark.parametrize(("shape", "advice"), HINTS)
def test_a_value_that_lacks_axes_is_told_how_to_write_them(shape: tuple[int, ...], advice: str) -> None:
    x, axes = torch.zeros(3, 4, 2, 5), ("batch", "token", "head", "d_head")
    value = torch.ones(shape)
    with pytest.raises(PrismaError, match=advice):
        Set(value)(x, axes)
    with pytest.raises(PrismaError, match=advice.replace("value", "mask")):
        Zero().where(value > 0)(x, axes)
    if "use value" in advice:  # what is advised is taken
        written = advice.split("use value")[1].split(", or")[0].replace("\\", "").rstrip("$")
        Set(eval("value" + written.replace("*value", "*value")))(x, axes)
