"""Edits are values, and do on the part they are told what indexing would."""

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import prisma
from prisma import Add, Mean, PrismaError, Resample, Scale, Set, Zero
from prisma.edits import Apply, At, Edit, Where, as_edit
from tests.variants import images_of, model_of

AXES = ("batch", "token", "head", "d_head")


def double(x: Tensor) -> Tensor:
    return 2 * x


def edits_for(x: Tensor) -> list[Edit]:
    """One of each kind that fits `x`."""
    value = torch.linspace(-1, 1, x.numel()).view(x.shape).to(x)
    return [
        Zero(), Set(value), Set(value[:, :1]), Add(value), Add(1.5), Scale(-2.0), Scale(value),
        Mean(), Mean(("token", "head")), Apply(double),
        *([Resample(tuple(reversed(range(len(x)))))] if len(x) > 1 else []),
    ]  # fmt: skip


@st.composite
def places(draw: st.DrawFn) -> tuple[Tensor, dict[str, Any]]:
    """A tensor of random shape, and a random choice of axes and indices of it."""
    shape = draw(st.tuples(*[st.integers(1, 4)] * 4))
    where: dict[str, Any] = {}
    for axis, size in zip(AXES, shape, strict=True):
        one = st.integers(-size, size - 1)
        several = st.lists(one, min_size=1, max_size=4, unique_by=lambda i, n=size: i % n)
        several = several.map(lambda rows, n=size: sorted(rows, key=lambda i: i % n))
        slices = st.slices(size).filter(lambda s, n=size: len(range(n)[s]) and (s.step or 1) > 0)
        kinds = (st.none(), one, several, slices)
        index = draw(st.one_of(*kinds))
        if index is not None:
            where[axis] = index
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64), where


@settings(max_examples=60, deadline=None)
@given(places())
def test_at_equals_explicit_indexing(place: tuple[Tensor, dict[str, Any]]) -> None:
    x, where = place
    inside = np.zeros(x.shape, dtype=bool)
    sizes = dict(zip(AXES, x.shape, strict=True))
    rows = [np.atleast_1d(np.arange(size)[where.get(axis, slice(None))]) for axis, size in sizes.items()]
    inside[np.ix_(*[row.astype(int) for row in rows])] = True
    for edit in edits_for(x):
        if isinstance(edit, Mean) and all(sizes[axis] == 1 for axis in edit.over):
            continue  # refused: see below
        before = x.clone()
        changed, everywhere = edit.at(**where)(x, AXES), edit(x, AXES)
        expected = np.where(inside, everywhere.numpy(), x.numpy())
        assert np.array_equal(changed.numpy(), expected), edit
        assert torch.equal(x, before), f"{edit} changed its input"


@given(places())
@settings(max_examples=20, deadline=None)
def test_at_twice_is_the_intersection(place: tuple[Tensor, dict[str, Any]]) -> None:
    x, where = place
    edit: Edit = Zero()
    for axis, index in where.items():
        edit = edit.at(**{axis: index})
    assert torch.equal(edit(x, AXES), Zero().at(**where)(x, AXES))


def test_what_each_edit_does() -> None:
    x = torch.arange(24.0).view(2, 3, 2, 2)
    assert torch.equal(Set(torch.ones(2))(x, AXES), torch.ones_like(x))
    assert torch.equal(Set(3.0)(x, AXES), torch.full_like(x, 3))
    assert torch.equal(Add(torch.ones(2, 1, 1, 1))(x, AXES), x + 1)
    assert torch.equal(Scale(0.5)(x, AXES), x / 2)
    assert torch.equal(Zero()(x, AXES), torch.zeros_like(x))
    assert torch.equal(Mean()(x, AXES), x.mean(0, keepdim=True).expand_as(x))
    assert torch.equal(Mean(("batch", "head"))(x, AXES)[0, :, 0], x.mean((0, 2)))
    assert torch.equal(Resample((1, 0))(x, AXES), x.flip(0))
    mask = torch.tensor([True, False]).expand(2, 3, 2, 2)
    assert torch.equal(Zero().where(mask)(x, AXES), x * torch.tensor([0.0, 1.0]))


def test_values_take_the_precision_of_the_site() -> None:
    x = torch.zeros(1, 2, dtype=torch.float32)
    for edit in (Set(torch.ones(2).double()), Add(torch.ones(2).double()), Scale(torch.ones(2).half())):
        assert edit(x, ("batch", "class")).dtype == torch.float32
    assert Add(0.1)(x.double(), ("batch", "class"))[0, 0].item() == 0.1


EQUAL = [
    (Zero(), Zero()),
    (Add(1), Add(1.0)),
    (Set(torch.ones(2)), Set(torch.ones(2))),
    (Zero().at(head=3), Zero().at(head=np.int64(3))),
    (Zero().at(head=3), Zero().at(head=torch.tensor(3))),
    (Zero().at(token=[0, 2]), Zero().at(token=(0, 2))),
    (Zero().at(token=range(3)), Zero().at(token=torch.arange(3))),
    (Zero().at(token=np.array([1, 2])), Zero().at(token=[1, 2])),
    (Zero().at(head=1, token=slice(2)), Zero().at(token=slice(2), head=1)),
    (Scale(2.0).where(torch.ones(2) > 0), Scale(2.0).where(torch.ones(2) > 0)),
    (Apply(double), Apply(double)),
    (Mean(), Mean(("batch",))),
]


def test_equal_values_are_equal_and_hash_alike() -> None:
    for a, b in EQUAL:
        assert a == b
        assert hash(a) == hash(b), a
        again = pickle.loads(pickle.dumps(a))
        assert again == a
        assert hash(again) == hash(a), a
        assert repr(again) == repr(a)


def test_different_edits_differ() -> None:
    ones = torch.ones(2)
    edits: list[Any] = [
        Zero(), Zero().at(head=1), Zero().at(head=2), Zero().at(token=1), Set(ones), Set(2 * ones), Set(torch.ones(3)),
        Set(ones.double()), Add(ones), Scale(2.0), Mean(), Mean(("token",)), Resample((1, 0)),
        Zero().where(ones > 0), 0,
    ]  # fmt: skip
    assert all((a == b) == (i == j) for i, a in enumerate(edits) for j, b in enumerate(edits))


def test_edits_print_without_their_numbers() -> None:
    assert repr(Set(torch.ones(2, 3)).at(head=3)) == "At(Set(Tensor[2, 3]), (('head', 3),))"
    assert repr(Add(1.5)) == "Add(1.5)"
    assert repr(Zero()) == "Zero()"


def test_edits_are_frozen() -> None:
    with pytest.raises(AttributeError):
        Add(1.0).value = 2.0  # type: ignore[misc]


BAD = {
    "no such axis": (Zero().at(neuron=1), r"\(batch, token, head, d_head\); found 'neuron'"),
    "index beyond the end": (Zero().at(head=2), r"expected head from 0 to 1 at this site; found 2"),
    "index before the start": (Zero().at(token=[0, -4]), r"expected token from 0 to 2 at this site; found -4"),
    "value of another size": (
        Set(torch.ones(7)),
        r"the axes of the part that it is for \(a number, \[batch, token, head, d_head\] = \[2, 3, 2, 2\], "
        r"\[d_head\] = \[2\]\); found \[7\]",
    ),
    "value that is larger": (Add(torch.ones(5, 2, 3, 2, 2)), r"found \[5, 2, 3, 2, 2\]"),
    "factor with other axes": (Scale(torch.ones(3, 1)), r"found \[3, 1\]"),
    "mean over no axis": (Mean(("neuron",)), r"found 'neuron'"),
    "resample of another batch": (Resample((1, 0, 2)), r"one Resample index per image, 2; found 3"),
    "resample out of range": (Resample((1, 2)), r"Resample indices from 0 to 1; found 2"),
    "mask that is not boolean": (Zero().where(torch.ones(2)), r"a boolean mask; found torch.float32"),
    "mask of another size": (Zero().where(torch.ones(5) > 0), r"found \[5\]"),
    "function that changes the shape": (Apply(lambda x: x[:1]), r"keeps the shape \[2, 3, 2, 2\].*\[1, 3, 2, 2\]"),
    "function of no tensor": (Apply(lambda x: None), r"returned NoneType"),
}


def test_what_does_not_fit_is_refused() -> None:
    for case, (edit, sentence) in BAD.items():
        with pytest.raises(PrismaError, match=sentence):
            edit(torch.zeros(2, 3, 2, 2), AXES)
            pytest.fail(f"{case} is taken")


def test_an_index_is_a_whole_number_several_or_a_slice() -> None:
    wrong: list[Any] = [1.5, "3", None, [[0]], torch.tensor([True, False]), True, [0.5], {1}]
    for index in wrong:
        with pytest.raises(PrismaError, match="expected head to be one or several whole numbers"):
            Zero().at(head=index)
            pytest.fail(f"{index!r} is taken as an index")


@pytest.mark.parametrize("over", [(), "batch"])
def test_a_mean_is_over_some_axes(over: Any) -> None:
    with pytest.raises(PrismaError, match="tuple of one axis name or more"):
        Mean(over)


@pytest.mark.parametrize("over", [("batch", "batch"), ["token", "token"]])
def test_a_mean_names_each_axis_once(over: Any) -> None:
    with pytest.raises(PrismaError, match="to name each axis once"):
        Mean(over)


def test_edits_that_would_do_nothing_are_refused() -> None:
    for order in ((0,), (0, 1, 2), [0, 1], range(4), torch.arange(3)):
        with pytest.raises(PrismaError, match="expected Resample to give some image another one's value"):
            Resample(order)  # type: ignore[arg-type]
    assert Resample(torch.tensor([1, 0])) == Resample((1, 0))  # type: ignore[arg-type]
    for order in (1, slice(2), [], (0.5,), "10"):
        with pytest.raises(PrismaError, match="expected"):
            Resample(order)  # type: ignore[arg-type]


def test_as_edit() -> None:
    assert as_edit(Zero()) == (Zero(),)
    assert as_edit(double) == (Apply(double),)
    assert as_edit([Zero(), (Add(1.0), double)]) == (Zero(), Add(1.0), Apply(double))
    for wrong, found in ((3, "found 3"), (Zero, "Zero'"), (torch.ones(2), r"found Tensor\[2\]"), (None, "None")):
        with pytest.raises(PrismaError, match=found):
            as_edit(wrong)


def test_edits_of_a_run_apply_in_order_and_on_globs() -> None:
    model = model_of("base")
    images = images_of(model)
    _, acts = prisma.record(
        model, images, "*.mlp_out", {"blocks.0.*_out": [Set(3.0), Scale(2.0)], "blocks.1.mlp_out": Set(1.0)}
    )
    assert (acts["blocks.0.mlp_out"] == 6).all()
    assert (acts["blocks.1.mlp_out"] == 1).all()
    one_by_one = {f"blocks.{layer}.attn.z": Zero().at(head=1) for layer in range(2)}
    assert torch.equal(
        prisma.run(model, images, {"*.attn.z": Zero().at(head=1)}), prisma.run(model, images, one_by_one)
    )


def test_edits_carry_gradients() -> None:
    model = model_of("base")
    direction = torch.zeros(model.config.d_model, dtype=torch.float64, requires_grad=True)
    prisma.run(model, images_of(model), {"blocks.0.resid_post": Add(direction).at(token=0)}).sum().backward()
    assert direction.grad is not None
    assert direction.grad.abs().max() > 0


def test_at_and_where_are_edits_themselves() -> None:
    assert isinstance(Zero().at(head=1), At)
    assert isinstance(Zero().where(torch.ones(1) > 0), Where)


def zero_in_place(x: Tensor) -> Tensor:
    x[0] = 0
    return x


def test_a_function_may_work_in_place_and_changes_only_its_own_site() -> None:
    model = model_of("base")
    images = images_of(model, n=3)
    logits = model(images)
    edited = prisma.run(model, images, {"pos_embed": zero_in_place})  # one row of memory for all images
    assert not torch.allclose(edited[0], logits[0])
    assert torch.equal(edited[1:], logits[1:])
    _, plain = prisma.record(model, images, "blocks.0.resid_post")
    _, acts = prisma.record(model, images, "blocks.0.resid_post", {"blocks.1.resid_pre": zero_in_place})
    assert torch.equal(acts["blocks.0.resid_post"], plain["blocks.0.resid_post"])  # the same tensor, one site earlier
    mine = torch.ones(model.config.d_model, dtype=torch.float64)
    prisma.run(model, images, {"embed": [Set(mine), zero_in_place]})
    assert torch.equal(mine, torch.ones_like(mine))


def test_a_mean_over_one_value_is_refused_because_it_would_do_nothing() -> None:
    model = model_of("base")
    with pytest.raises(PrismaError, match="more than one value to average over batch; found one"):
        prisma.run(model, images_of(model, n=1), {"blocks.0.attn.z": Mean()})
    assert prisma.run(model, images_of(model, n=1), {"blocks.0.attn.z": Mean(("batch", "token"))}).isfinite().all()


WRONG_RESULTS = {
    "float64": (lambda x: x.double(), "returned torch.float64 on cpu: end it with"),
    "half": (lambda x: x.half(), "returned torch.float16 on cpu"),
    "integer": (lambda x: x.long(), "returned torch.int64 on cpu"),
    "boolean": (lambda x: x > 0, "returned torch.bool on cpu"),
    "device": (lambda x: x.to("meta"), "returned torch.float32 on meta"),
}


@pytest.mark.parametrize("case", WRONG_RESULTS)
def test_a_function_keeps_the_type_and_the_device(case: str) -> None:
    function, found = WRONG_RESULTS[case]
    model = model_of("base", torch.float32)
    sentence = (
        r"^the edit of blocks\.1\.attn\.z: expected an edit that keeps the type torch\.float32 and the device cpu"
    )
    with pytest.raises(PrismaError, match=sentence) as error:
        prisma.run(model, images_of(model), {"blocks.1.attn.z": [Scale(2.0), function]})
    assert found in str(error.value)


def test_arrays_and_lists_are_tensors_of_the_edit() -> None:
    """So that they compare, hash and print as tensors do, whatever is done to the array later."""
    array = np.array([1.0, 2.0])
    x = torch.zeros(2, 3, 2, 2)
    for kind in (Set, Add, Scale):
        edit = kind(array)
        assert edit == kind(torch.tensor([1.0, 2.0]).double()) == kind([1.0, 2.0])  # type: ignore[arg-type]
        assert hash(edit) == hash(kind(array)) and repr(edit) == f"{kind.__name__}(Tensor[2])"
        assert pickle.loads(pickle.dumps(edit)) == edit
        assert edit != kind(np.array([1.0, 3.0])) and edit != kind(1.0)
    edit = Set(array)  # type: ignore[arg-type]
    array[:] = 7
    assert torch.equal(edit(x, AXES), torch.tensor([1.0, 2.0]).expand_as(x))
    assert Add(np.float64(0.1)) == Add(0.1) and hash(Add(np.float64(0.1))) == hash(Add(0.1))  # type: ignore[arg-type]
    mask = np.zeros((2, 3, 1, 1), dtype=bool)
    mask[:, 1] = True
    where = Zero().where(mask)  # type: ignore[arg-type]
    assert where == Zero().where(torch.from_numpy(mask)) and hash(where) == hash(Zero().where(torch.from_numpy(mask)))
    assert where != Zero().where(torch.from_numpy(~mask))
    assert torch.equal(where(x + 1, AXES)[:, 1], x[:, 1]) and (where(x + 1, AXES)[:, 2] == 1).all()
    read_only = np.ones(2)
    read_only.flags.writeable = False
    assert (Set(read_only)(x, AXES) == 1).all()  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [Set, Add, Scale, lambda x: Zero().where(x)])
def test_a_value_that_is_no_number_is_refused_where_it_is_made(kind: Any) -> None:
    for wrong in ("a", None, object(), ["a", "b"], np.array(["a"]), [[1.0], [1.0, 2.0]]):
        with pytest.raises(PrismaError, match=r"expected a number or a tensor as (the|a) .*; found "):
            kind(wrong)
            pytest.fail(f"{wrong!r} is taken")


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (torch.full((8,), 1j), "a dense tensor of real numbers as .*; found complex numbers"),
        (np.full(8, 1j), "a dense tensor of real numbers as .*; found complex numbers"),
        (torch.ones(8, device="meta"), "a dense tensor of real numbers as .*; found no values"),
        (torch.ones(8).to_sparse(), "a dense tensor of real numbers as .*; found torch.sparse"),
        (10**400, "a number that a float can hold as .*; found one of 1329 bits"),
    ],
)
def test_what_an_edit_cannot_write_is_refused_where_it_is_made(value: object, sentence: str) -> None:
    for make in (Set, Add):
        with pytest.raises(PrismaError, match=sentence):
            make(value)  # type: ignore[arg-type]


def test_arrays_of_another_byte_order_are_the_same_numbers() -> None:
    array = np.arange(8, dtype=">f4")
    assert torch.equal(Set(array)(torch.zeros(8), ("d_model",)), torch.arange(8.0))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [Set, Add, Scale])
@pytest.mark.parametrize(
    "value", [True, False, np.True_, float("nan"), np.float32("nan"), torch.tensor([True]), [True]]
)
def test_what_is_no_number_is_no_value(kind: Any, value: Any) -> None:
    with pytest.raises(
        PrismaError, match=r"^expected a (number or a tensor|dense tensor of real numbers) as the .*found"
    ):
        kind(value)


def test_a_value_that_is_not_finite_is_named_with_its_site() -> None:
    model = model_of("base")
    images = images_of(model, 2)
    bad = torch.zeros(model.config.d_model)
    bad[1] = torch.nan
    for edit in (Set(bad), Add(bad).at(token=0), [Zero(), Scale(bad)], Set(-torch.inf), Add(torch.inf)):
        with pytest.raises(PrismaError, match=r"^expected finite numbers in the edit of blocks.0.resid_mid; found"):
            prisma.run(model, images, {"blocks.0.resid_mid": edit})


def test_minus_infinity_masks_a_key() -> None:
    model = model_of("base")
    _, acts = prisma.record(
        model, images_of(model, 2), "blocks.0.attn.pattern", {"blocks.0.attn.scores": Set(-torch.inf).at(key=1)}
    )
    assert not acts["blocks.0.attn.pattern"][..., 1].any() and acts["blocks.0.attn.pattern"].isfinite().all()


@pytest.mark.parametrize("as_array", [np.asarray, Tensor.tolist], ids=["array", "list"])
def test_advice_about_an_array_is_about_a_tensor_of_it(as_array: Any) -> None:
    """What is advised works when it is done."""
    model = model_of("base")
    images, site = images_of(model, 3), "blocks.0.resid_mid"
    mask = prisma.record(model, images[:1], site)[1][site][0] > 0
    given = as_array(mask)
    with pytest.raises(PrismaError, match=r"use (torch.as_tensor\(mask\).expand\(3, .*shape\))$") as error:
        prisma.run(model, images, {site: Zero().where(given)})
    advised = eval(str(error.value).rpartition("use ")[2], {"torch": torch, "mask": given})
    wanted = prisma.run(model, images, {site: Zero().where(mask.expand(3, *mask.shape))})
    assert torch.equal(prisma.run(model, images, {site: Zero().where(advised)}), wanted)
    with pytest.raises(PrismaError, match=r"use value.expand\(3, \*value.shape\)$"):
        prisma.run(model, images, {site: Set(mask.float())})
