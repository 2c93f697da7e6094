"""Every analysis in low precision, on a model whose activations and weights have a large part in common.

Two kinds of rounding are told apart. That of the forward is the model's own: its size is that of an activation, common
part included. That of the analysis must not add to it, so the arithmetic is compared with float64 on the *same*
activations: a float64 twin of the model, whose recordings are taken from the run in low precision.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from prisma import LogitDiff, ViT, attribution_patching
from prisma.analysis import border
from tests.analyses import OF_IMAGES, OF_WEIGHTS, arrays_of
from tests.variants import images_of, model_of

pytestmark = pytest.mark.filterwarnings("ignore:expected pairs that agree")  # random models have no circuit

RECORDED = [
    "artifacts", "attention_flow", "direct_logit_attribution", "direct_logit_attribution integrated", "embedding_scale",
    "head_scores", "head_similarity", "head_similarity cosine", "head_similarity cka", "norm_weighted_attention",
    "rollout",
]  # fmt: skip
"""The analyses that compute from recorded activations; the others run the model and measure its logits."""
COMMON = {torch.float32: 100.0, torch.float16: 3.0, torch.bfloat16: 3.0}
"""Precision -> how much larger the common part is than the rest, so that some bits of the rest are left."""
ARITHMETIC = {torch.float32: 5e-5, torch.float16: 5e-5, torch.bfloat16: 5e-5}
"""Precision -> the largest error against float64 on the same weights or activations, as a share of the largest number
of each array: nothing is computed in half precision, so it is that of float32. Processors round differently: up to
3.2e-5 was seen."""
FORWARD = {torch.float32: 5e-3, torch.float16: 0.3, torch.bfloat16: 1.0}
"""The same with the rounding of the forward, whose size is the common part times the precision."""
HALVES = (torch.bfloat16, torch.float16)
STEPPED = {
    "attention_perturbation", "class_identifiability", "class_similarity_change", "cluster_lesions", "compare_maps",
    "interchange", "lens_segmentation", "linear_probes", "map_sensitivity", "memories", "token_perturbation",
}  # fmt: skip
"""Ranks and thresholds: a rounded logit moves them by a whole step, so they are compared where logits hardly move."""
NOT_NUMBERS = {"edges", "sizes", "tied", "stderr", "baseline"}  # stderr follows; the baseline is random by precision
NOT_NUMBERS |= {"sanity", "cascade", "alone"}  # of shuffled weights, in whose activations the common part stays: their
# precision is tested where there is none, in `tests/analysis/attribution/test_map_checks.py`
SIZE_OF = {"delta": "change"}
"""Array -> the one whose size its error is a share of: what is missing of a sum is rounding, of the sum's size."""
SIZED_BY = {"atp_star grad_drop": "atp_star"}
"""Analysis -> the one whose arrays have that size: without the gradient of a layer a number loses a part of itself, and
may be 0, but not that part of its rounding."""


@cache
def with_common_part(dtype: torch.dtype) -> tuple[ViT, Tensor]:
    """A model and images. Tokens, values, weights and logits have a large part in common, which changes no answer."""
    model, size = model_of("base"), COMMON[dtype]
    direction = torch.randn(12, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    added = {
        "embed.prefix": size * direction,
        "embed.positions": size * direction,
        "attn.qkv.bias": torch.cat([torch.zeros(24), size * direction]),
        "attn.qkv.weight": size,  # the norm before takes this away, and the one after what the MLP writes
        "mlp.out.weight": size,
        "readout.head.bias": size,
    }
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            for end, common in added.items():
                if name.endswith(end):
                    parameter += common
    return model.to(dtype), images_of(model.to(dtype), 3)


@contextmanager
def recorded_in(model: ViT, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Analyses of any model get the activations of this one, in float64."""
    record = border.record_any

    def record_this(twin: ViT, images: Tensor, *args: Any, **options: Any) -> tuple[Tensor, Any]:
        output, acts = record(model, images.to(dtype), *args, **options)
        return output.double(), acts.map(Tensor.double)

    with monkeypatch.context() as patched:
        patched.setattr(border, "record_any", record_this)
        yield


def compare(found: Any, expected: Any, tolerance: float, sizes: Any = None) -> None:
    wanted = arrays_of(expected)
    sizes = wanted if sizes is None else arrays_of(sizes)
    for name, x in arrays_of(found).items():
        if name.rpartition(".")[2] in NOT_NUMBERS:
            continue
        assert x.dtype not in HALVES, name
        reference = wanted[name].double()
        assert torch.equal(x.isnan(), reference.isnan()), name
        place, _, end = name.rpartition(".")
        sized = sizes[".".join([*filter(None, [place]), SIZE_OF.get(end, end)])].double()
        scale = sized.nan_to_num().abs().max().item()
        assert (x.double() - reference).nan_to_num().abs().max().item() <= tolerance * scale, name


@pytest.mark.parametrize("dtype", COMMON)
@pytest.mark.parametrize("name", OF_WEIGHTS)
def test_analyses_of_weights_are_those_of_float64(name: str, dtype: torch.dtype) -> None:
    model, _ = with_common_part(dtype)
    compare(OF_WEIGHTS[name](model), OF_WEIGHTS[name](deepcopy(model).double()), ARITHMETIC[dtype])


@pytest.mark.parametrize("dtype", COMMON)
@pytest.mark.parametrize("name", RECORDED)
def test_arithmetic_is_that_of_float64_on_the_same_activations(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, images = with_common_part(dtype)
    found = OF_IMAGES[name](model, images)
    with recorded_in(model, dtype, monkeypatch):
        expected = OF_IMAGES[name](deepcopy(model).double(), images.double())
    compare(found, expected, ARITHMETIC[dtype])


@pytest.mark.parametrize("dtype", COMMON)
@pytest.mark.parametrize("name", [name for name in OF_IMAGES if name not in RECORDED])
def test_the_others_are_those_of_float64_but_for_the_forward(name: str, dtype: torch.dtype) -> None:
    model, images = with_common_part(dtype)
    found = OF_IMAGES[name](model, images)
    if name in STEPPED and dtype != torch.float32:
        assert all(x.dtype not in HALVES for x in arrays_of(found).values())
        return
    expected, *sizes = (
        OF_IMAGES[one](deepcopy(model).double(), images.double()) for one in (name, SIZED_BY.get(name)) if one
    )
    compare(found, expected, FORWARD[dtype], *sizes)


def test_under_autocast_nothing_is_returned_in_half_precision() -> None:
    model = model_of("base", torch.float32)
    images = images_of(model, 3)
    plain = attribution_patching(model, images, images.roll(1, 0), LogitDiff(0, 1))
    with torch.autocast("cpu", torch.bfloat16):
        for name, analysis in OF_IMAGES.items():
            arrays = arrays_of(analysis(model, images))
            assert all(x.dtype not in HALVES for x in arrays.values()), name
        found = attribution_patching(model, images, images.roll(1, 0), LogitDiff(0, 1))
    for name, x in found.arrays.items():
        torch.testing.assert_close(x, plain.arrays[name], rtol=0, atol=0.1 * plain.arrays[name].abs().max().item())
