"""Sweeps in low precision with exact largest cells, against the sweep in which every cell is exact."""

import copy
import gc
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prisma import LogitDiff, PrismaError, sweep
from prisma.analysis.patching.activation_patching import activation_patching
from prisma.analysis.patching.low_precision import in_precision
from tests.variants import images_of, model_of

METRIC = LogitDiff(0, 1)


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from(["base", "divided", "norm_res_post", "gated_silu"]),
    st.sampled_from(["attn.z", "resid_post"]),
    st.sampled_from(["float32", "bfloat16"]),
    st.sampled_from(["clean", "corrupt"]),
    st.integers(0, 40),
)
def test_the_largest_cells_are_exact_and_marked(variant: str, site: str, precision: str, into: str, k: int) -> None:
    model = model_of(variant)
    clean, corrupt = images_of(model, 3, seed=1), images_of(model, 3, seed=2)
    whole = activation_patching(model, clean, corrupt, site, METRIC, into=into)
    found = activation_patching(
        model, clean, corrupt, site, METRIC, into=into, precision=precision, exact_top=k, batch=5
    )
    exact, error = found.exact.bool(), found.metadata["error"]
    for end in ("clean", "corrupt"):  # to rounding: which runs share a pass is seen in the last bits
        torch.testing.assert_close(getattr(found, end), getattr(whole, end), rtol=0, atol=1e-12)
    assert exact.sum() >= min(k, exact.numel()) and (k or not exact.any())
    assert torch.allclose(found.values[:, exact], whole.values[:, exact], atol=1e-12)
    assert not torch.equal(found.values, whole.values) or exact.all()
    low = activation_patching(model, clean, corrupt, site, METRIC, into=into, precision=precision, batch=5)
    assert low.metadata["error"] != low.metadata["error"] and not low.exact.any()  # nothing exact, no error known
    torch.testing.assert_close(low.values[:, ~exact], found.values[:, ~exact], rtol=0, atol=1e-12)
    if k:
        gaps = (low.change - whole.change).abs()
        assert error == pytest.approx(gaps[exact].max().item(), abs=1e-12)
        kth = whole.change.abs()[exact].sort(descending=True).values[min(k, int(exact.sum())) - 1]
        above = low.change.abs() - (kth - error)
        clear = above.abs() > 1e-12  # the cell that sets both numbers lies on the border, up to rounding
        assert (exact[clear] >= (above[clear] > 0)).all(), "what may be among the largest is exact"
        sizes = low.change.abs()  # beside those only what was above the border before the last cells moved it
        least = sizes.flatten().topk(min(k, sizes.numel())).values[-1] - 2 * error
        assert (sizes[exact] >= least - 1e-12).all()
        if (gaps <= error).all():  # where the measured error holds everywhere, the largest cells are among the exact
            largest = whole.change.abs().flatten().topk(min(k, exact.numel())).indices
            assert exact.flatten()[largest].all()
    told = {"into": into, "precision": precision, "exact_top": k, "batch": 5}
    assert torch.equal(sweep(model, clean, corrupt, site, METRIC, **told), found.effect)


def test_a_model_that_carries_a_hook_is_swept_by_whole_runs() -> None:
    model = model_of("base")
    model.blocks[0].mlp.register_forward_hook(lambda module, args, output: 2 * output)
    clean, corrupt = images_of(model, 2, seed=1), images_of(model, 2, seed=2)
    whole = sweep(model, clean, corrupt, "attn.z", METRIC)
    found = sweep(model, clean, corrupt, "attn.z", METRIC, precision="float32", exact_top=8)
    assert torch.allclose(found, whole, atol=1e-4)
    assert next(model.parameters()).dtype == torch.float64


def test_a_model_in_another_precision_is_the_same_model() -> None:
    """As `copy.deepcopy(model).to(...)`: shared weights stay shared, buffers of whole numbers as they are."""
    model = model_of("rotary_table")
    model.blocks[0].attn.out.weight = model.blocks[1].attn.out.weight
    model.register_buffer("counts", torch.arange(3))
    model.blocks[0].mlp.register_forward_hook(lambda module, args, output: 2 * output)
    images = images_of(model, 2)
    before, expected = model(images), copy.deepcopy(model).to(torch.float32)(images.float())
    found = in_precision(model, torch.float32)
    assert torch.equal(found(images.float()), expected) and torch.equal(model(images), before)
    assert found.blocks[0].attn.out.weight is found.blocks[1].attn.out.weight
    assert found.counts is model.counts and {x.dtype for x in model.parameters()} == {torch.float64}
    assert [name for name, _ in found.named_parameters()] == [name for name, _ in model.named_parameters()]


def test_a_copy_is_forgotten_at_once() -> None:
    """One that waited for a collection of cycles would keep its memory, on a GPU that of a model for every sweep."""
    copied = in_precision(model_of("base"), torch.bfloat16)
    there = weakref.ref(copied.blocks[0].attn.out.weight)
    gc.disable()
    try:
        del copied
        assert there() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"precision": "int8"}, "expected precision to be bfloat16, float16, float32; found 'int8'"),
        ({"exact_top": 3}, "expected exact_top of at least 0, with a precision .* found exact_top=3, precision=None"),
        ({"exact_top": -1, "precision": "float32"}, "expected exact_top of at least 0"),
    ],
)
def test_what_cannot_be_swept_is_said(told: dict[str, object], message: str) -> None:
    model = model_of("base")
    with pytest.raises(PrismaError, match=message):
        activation_patching(model, images_of(model, 1), images_of(model, 1, seed=2), "attn.z", METRIC, **told)
