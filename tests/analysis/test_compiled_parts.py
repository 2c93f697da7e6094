"""Parts of a model that are compiled, or put into a wrapper: every analysis gives the same answer, or one sentence."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import prisma
from prisma import LogitDiff, PrismaError, Set, ViT
from prisma.analysis.circuits.branches import messages
from prisma.analysis.circuits.graph import Graph
from prisma.checkpoint import read_checkpoint, write_checkpoint
from prisma.circuits import biases, folded_in, neuron_weights, ov, stream_weights
from prisma.plain import uncompiled
from prisma.runs import resume
from tests.analyses import METRIC, OF_IMAGES, OF_WEIGHTS, arrays_of
from tests.analysis.test_changed_models import bent, close, replaced
from tests.variants import images_of, model_of

PARTS = ("embed.patch", "blocks.0.ln1", "blocks.0.ln2", "blocks.0.mlp.out", "blocks.0", "blocks.1.attn.qkv",
         "blocks.1.attn.out", "blocks.1.attn", "blocks.1.ln2", "blocks.1.mlp", "readout.ln_final", "readout.head",
         "readout")  # fmt: skip


def with_compiled_parts(model: ViT) -> ViT:
    """Each of the parts compiled, some of them inside each other; the model and a block compiled in place, too."""
    compiled = deepcopy(model)
    for name in PARTS:
        replaced(compiled, name, torch.compile(compiled.get_submodule(name), backend="eager"))  # type: ignore[arg-type]
    compiled.blocks[1].compile(backend="eager")
    compiled.compile(backend="eager")
    return compiled


@pytest.fixture(scope="module", params=["base", "norm_res_post"])
def pair(request: pytest.FixtureRequest) -> tuple[ViT, ViT]:
    model = model_of(request.param).requires_grad_(False)
    return model, with_compiled_parts(model)


@pytest.mark.filterwarnings("ignore:expected pairs that agree")
@pytest.mark.parametrize("name", [*OF_IMAGES, *OF_WEIGHTS])
def test_every_analysis_of_compiled_parts_is_that_of_the_parts(name: str, pair: tuple[ViT, ViT]) -> None:
    images = images_of(pair[0], 3)
    expected, found = (
        arrays_of(OF_IMAGES[name](m, images) if name in OF_IMAGES else OF_WEIGHTS[name](m)) for m in pair
    )
    assert found.keys() == expected.keys()
    for array, x in expected.items():
        torch.testing.assert_close(found[array], x, rtol=1e-10, atol=1e-11, equal_nan=True)


@torch.no_grad()
def test_weights_and_steps_of_compiled_parts(pair: tuple[ViT, ViT]) -> None:
    model, compiled = pair
    for name in ("W_Q", "W_K", "W_V", "W_O", "W_in", "W_out"):
        close(getattr(compiled, name), getattr(model, name))
    for layer in range(2):
        close(biases(compiled, layer)["b_V"], biases(model, layer)["b_V"])
        close(stream_weights(compiled, layer)["W_O"], stream_weights(model, layer)["W_O"])
        close(neuron_weights(compiled, layer), neuron_weights(model, layer))
        close(ov(compiled, layer, ln="folded"), ov(model, layer, ln="folded"))
    norm, weight = model.blocks[0].get_submodule("ln2"), torch.eye(12).double()
    close(folded_in(torch.compile(norm, backend="eager"), weight), folded_in(norm, weight))  # type: ignore[arg-type]


@torch.no_grad()
def test_runs_of_compiled_parts_are_runs_of_the_parts() -> None:
    model = model_of("base").requires_grad_(False)
    images, compiled = images_of(model, 2), deepcopy(model)
    compiled.blocks[0] = torch.compile(compiled.blocks[0], backend="eager")  # type: ignore[assignment]
    replaced(compiled, "blocks.1.attn", torch.compile(compiled.blocks[1].attn, backend="eager"))  # type: ignore[arg-type]
    sites = ["blocks.*.attn.z", "blocks.*.resid_pre", "blocks.*.resid_mid", "blocks.1.attn.pattern"]
    (found, acts), (expected, plain) = (prisma.record(m, images, sites) for m in (compiled, model))
    close(found, expected)
    assert list(acts) == list(plain)
    z = plain["blocks.1.attn.z"].flip(0)
    edit = {"blocks.1.attn.z": Set(z)}
    close(prisma.run(compiled, images, edit), prisma.run(model, images, edit))
    close(resume(compiled, images, 1, "attn.z", z, plain["blocks.1.resid_pre"]), prisma.run(model, images, edit))
    assert len(messages(uncompiled(compiled), images)[1].stages) == len(Graph(model.config).stages)


def test_taking_the_wrappers_off_changes_nothing_of_the_callers() -> None:
    model = model_of("base").requires_grad_(False)
    assert uncompiled(model) is model
    compiled = with_compiled_parts(model)
    before = dict(compiled.named_modules())
    plain = uncompiled(compiled)
    assert not any("_orig_mod" in name for name, _ in plain.named_modules())
    assert list(plain.state_dict()) == list(model.state_dict())
    assert plain.blocks[0].attn.qkv.weight is compiled.blocks[0].attn.qkv.weight
    assert dict(compiled.named_modules()) == before
    assert uncompiled(torch.compile(model, backend="eager")) is model  # type: ignore[arg-type]


@torch.no_grad()
def test_a_hook_on_a_wrapper_is_kept() -> None:
    """In the order in which they happened: what is inside first, before a forward last."""
    model, same = (model_of("base").requires_grad_(False) for _ in range(2))
    images = images_of(model, 2)
    same.blocks[0].register_forward_hook(lambda m, a, y: 2 * y)
    same.blocks[0].register_forward_hook(bent)
    same.blocks[0].register_forward_pre_hook(lambda m, a: (a[0] + 1, *a[1:]))
    same.blocks[0].register_forward_pre_hook(lambda m, a: (a[0] * 3, *a[1:]))
    model.blocks[0].register_forward_pre_hook(lambda m, a: (a[0] * 3, *a[1:]))
    model.blocks[0].register_forward_hook(lambda m, a, y: 2 * y)
    compiled: Any = torch.compile(model.blocks[0], backend="eager")
    compiled.register_forward_hook(bent)
    compiled.register_forward_pre_hook(lambda m, a: (a[0] + 1, *a[1:]))
    model.blocks[0] = compiled
    expected = same(images)
    close(uncompiled(model)(images), expected)
    close(prisma.ablation(model, images, "attn.z", METRIC).clean, METRIC(expected))
    with pytest.raises(PrismaError, match=r"expected blocks\.0 to compute .* found a forward"):
        prisma.path_patching(model, images, images.flip(0), METRIC)


def test_a_checkpoint_of_compiled_parts_is_that_of_the_parts(tmp_path: Any) -> None:
    model = model_of("base", torch.float32).requires_grad_(False)
    write_checkpoint(tmp_path, with_compiled_parts(model))
    found = read_checkpoint(tmp_path).model
    for name, x in model.state_dict().items():
        assert torch.equal(found.state_dict()[name], x), name


WRAPPED = ("embed", "blocks.0", "blocks.1.attn", "blocks.1.ln1", "blocks.0.mlp.out", "readout")


@pytest.mark.parametrize("name", [*OF_IMAGES, *OF_WEIGHTS])
def test_a_part_inside_a_wrapper_is_one_sentence(name: str) -> None:
    part = WRAPPED[len(name) % len(WRAPPED)]
    model = model_of("base").requires_grad_(False)
    replaced(model, part, nn.DataParallel(model.get_submodule(part)))
    sentence = rf"expected {part} to be a part of a prisma model; found one inside .*DataParallel: put its \.module in"
    with pytest.raises(PrismaError, match=sentence):
        OF_IMAGES[name](model, images_of(model, 3)) if name in OF_IMAGES else OF_WEIGHTS[name](model)


class Foreign(nn.Module):
    """Has none of the parts of what it replaces."""

    def forward(self, x: Tensor, *others: Any, **more: Any) -> Tensor:
        return x


@pytest.mark.parametrize("read", ["W_Q", "W_out"])
def test_weights_behind_another_class_are_one_sentence(read: str) -> None:
    model = model_of("base")
    model.blocks[1] = Foreign()
    with pytest.raises(PrismaError, match=r"expected blocks\.1 to compute .*; found the class .*Foreign; merge"):
        getattr(model, read)


def test_a_norm_without_factors_is_one_with_factors_of_one() -> None:
    model, same = (model_of("base").requires_grad_(False) for _ in range(2))
    for name in ("blocks.0.ln1", "blocks.1.ln1", "blocks.1.ln2", "readout.ln_final"):
        replaced(model, name, nn.LayerNorm(12, elementwise_affine=False, dtype=torch.float64))
        replaced(same, name, nn.LayerNorm(12, dtype=torch.float64))
    images, metric = images_of(model, 2), LogitDiff(0, 1)
    close(prisma.composition(model, samples=2).q, prisma.composition(same, samples=2).q)
    close(*(prisma.direct_logit_attribution(m, images, metric).components.sum(1) for m in (model, same)))
