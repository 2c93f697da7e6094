"""What makes a module more than its class and weights."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm
from torch.utils.flop_counter import FlopCounterMode

import prisma
from prisma import LogitDiff, PrismaError, plain
from prisma.plain import expect_plain, is_plain
from tests.variants import VARIANTS, images_of, model_of


class Lora(nn.Module):
    """As an adapter library makes it: the linear layer is inside."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base
        draw = torch.Generator().manual_seed(0)
        self.down = nn.Parameter(torch.randn(2, base.in_features, generator=draw, dtype=base.weight.dtype))
        self.up = nn.Parameter(torch.randn(base.out_features, 2, generator=draw, dtype=base.weight.dtype) / 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + x @ self.down.T @ self.up.T


class Subclass(nn.Linear):
    pass


class Quantised(Tensor):
    pass


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def own_forward(layer: nn.Linear) -> nn.Module:
    layer.forward = lambda x: 2 * x  # type: ignore[method-assign]
    return layer


def with_hook(layer: nn.Linear, register: str) -> nn.Module:
    getattr(layer, register)(lambda *_: None)
    return layer


def with_quantised_weight(layer: nn.Linear) -> nn.Module:
    layer.weight = nn.Parameter(layer.weight.detach().as_subclass(Quantised), requires_grad=False)
    return layer


CARRIED: dict[str, tuple[Callable[[nn.Linear], nn.Module], str]] = {
    "forward hook": (lambda x: with_hook(x, "register_forward_hook"), "a forward hook, with_hook.<locals>.<lambda>"),
    "pre-hook": (lambda x: with_hook(x, "register_forward_pre_hook"), "a forward pre-hook"),
    "backward hook": (lambda x: with_hook(x, "register_full_backward_hook"), "a backward hook"),
    "backward pre-hook": (lambda x: with_hook(x, "register_full_backward_pre_hook"), "a backward pre-hook"),
    "adapter": (Lora, "the class tests.test_plain.Lora"),
    "subclass": (lambda x: Subclass(2, 3), "the class tests.test_plain.Subclass"),
    "forward of its own": (own_forward, "a forward of its own"),
    "pruning": (lambda x: prune.l1_unstructured(x, "weight", 1), "a forward pre-hook, L1Unstructured"),
    "old spectral norm": (spectral_norm, "a forward pre-hook, SpectralNorm"),
    "quantised weight": (with_quantised_weight, "weight of the class tests.test_plain.Quantised"),
}


@pytest.mark.parametrize("case", CARRIED)
def test_what_a_module_carries_is_found_and_named(case: str) -> None:
    change, found = CARRIED[case]
    part = change(nn.Linear(2, 3))
    assert not is_plain(part)
    whole = nn.ModuleDict({"layer": part})
    with pytest.raises(PrismaError, match="a test: expected layer to compute what its class") as error:
        expect_plain(whole, ["layer"], "a test", gradients=True)
    if "backward" in case:  # the forward is as it was
        expect_plain(whole, ["layer"], "a test")
        with torch.no_grad():
            assert is_plain(part)
    assert f"found {found}" in str(error.value)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_part_of_every_model_is_plain(variant: str) -> None:
    model = model_of(variant)
    assert all(is_plain(part) for part in model.modules())
    assert is_plain(torch.compile(model, backend="eager"))
    expect_plain(model, ["", "embed.patch", "readout.attention_pool"], "a test")


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("case", ["nothing", "parametrization", "compiled", *CARRIED])
def test_the_quick_look_says_nothing_else(case: str, gradients: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    change: dict[str, Callable[[nn.Linear], nn.Module]] = {name: how for name, (how, _) in CARRIED.items()}
    change |= {
        "nothing": lambda x: x,
        "parametrization": parametrizations.weight_norm,
        "compiled": lambda x: torch.compile(x, backend="eager"),  # type: ignore[dict-item]
    }
    part = change[case](nn.Linear(2, 3))
    found = is_plain(part, gradients=gradients)
    assert plain._is_as_made(part, gradients) == (found and case in ("nothing", *CARRIED))
    monkeypatch.setattr(plain, "_is_as_made", lambda module, gradients: False)
    assert is_plain(part, gradients=gradients) == found


def test_a_hook_on_all_modules_is_on_every_module() -> None:
    layer = nn.Linear(2, 2)
    handle = register_module_forward_hook(lambda *_: None)
    try:
        assert not is_plain(layer)
        with pytest.raises(PrismaError, match=r"expected the model to .*; found a forward hook on all modules"):
            expect_plain(layer, [""], "a test")
    finally:
        handle.remove()
    assert is_plain(layer)


def test_a_counter_of_operations_changes_nothing() -> None:
    layer = nn.Linear(2, 2)
    with FlopCounterMode(display=False):
        assert is_plain(layer)


def test_a_parametrized_weight_is_the_one_that_is_read() -> None:
    layer = nn.Linear(2, 2)
    parametrize.register_parametrization(layer, "weight", Doubled())
    parametrizations.weight_norm(other := nn.Linear(2, 2))
    for part in (layer, other):
        assert is_plain(part)
        x = torch.randn(3, 2)
        torch.testing.assert_close(part(x), x @ part.weight.T + part.bias)
    layer.register_forward_hook(lambda *_: None)
    assert not is_plain(layer)


def test_a_removed_hook_leaves_a_plain_module() -> None:
    layer: Any = nn.Linear(2, 2)
    handle = layer.register_forward_hook(lambda *_: None)
    handle.remove()
    assert is_plain(layer)


def test_a_subclass_with_a_constructor_of_its_own_is_plain() -> None:
    model = model_of("base")

    class Named(type(model)):  # type: ignore[misc]
        def __init__(self, name: str) -> None:
            super().__init__(model.config)
            self.name = name

        def extra_repr(self) -> str:
            return self.name

    class Other(Named):
        def forward(self, *inputs: Any, **more: Any) -> Tensor:
            return super().forward(*inputs, **more)

    assert is_plain(Named("mine")) and not is_plain(Other("another"))


def test_what_to_do_about_a_class_fits_what_it_is() -> None:
    model = model_of("base")

    class Other(type(model.blocks[0].mlp)):  # type: ignore[misc]
        def forward(self, *inputs: Any, **more: Any) -> Tensor:
            return 2 * super().forward(*inputs, **more)

    model.blocks[0].mlp = Other(model.config, model.config.d_mlp)
    sentence = (
        r"found the class .*Other, whose forward may differ from that of prisma\.layers\.MLP; put a "
        r"prisma\.layers\.MLP with the same weights \(load_state_dict\) in its place first$"
    )
    with pytest.raises(PrismaError, match=sentence):
        expect_plain(model, ["blocks.0.mlp"], "a test")
    model.blocks[0].mlp = Lora(nn.Linear(2, 2))
    with pytest.raises(PrismaError, match=r"Lora; merge what it does into the weights of the part that was there, and"):
        expect_plain(model, ["blocks.0.mlp"], "a test")
    with pytest.raises(PrismaError, match=r"expected blocks\.0\.mlp to .*Lora; merge"):
        expect_plain(model, ["blocks.0.mlp.out"], "a test")


def test_what_hangs_on_a_container_never_happens() -> None:
    model = model_of("base")
    images = images_of(model)
    before = model(images)
    model.blocks.register_forward_hook(lambda *_: 0 / 0)
    assert torch.equal(model(images), before)
    assert is_plain(model.blocks)
    model.blocks = nn.Sequential(*model.blocks)  # type: ignore[assignment]
    model.blocks.register_forward_hook(lambda *_: 0 / 0)
    assert torch.equal(model(images), before)
    metric = LogitDiff(0, 1)
    found = prisma.direct_logit_attribution(model, images, metric).components.sum(1)
    torch.testing.assert_close(found, metric(before.detach()))


def test_a_backward_hook_matters_to_gradients_alone() -> None:
    """Analyses of weights and of activations take it; those that put a gradient together from steps do not."""
    model, same = model_of("base").requires_grad_(False), model_of("base").requires_grad_(False)
    images, metric = images_of(model), LogitDiff(0, 1)
    for name in ("", "blocks.0", "blocks.0.attn", "blocks.1.mlp.out", "readout.ln_final"):
        model.get_submodule(name).register_full_backward_hook(lambda *_: None)
        model.get_submodule(name).register_full_backward_pre_hook(lambda *_: None)
    for m in (model, same):
        m.W_Q, m.W_out  # noqa: B018
    calls: tuple[Callable[[Any], Tensor], ...] = (
        lambda m: prisma.direct_logit_attribution(m, images, metric).components,
        lambda m: prisma.composition(m, samples=2).q,
        lambda m: prisma.class_values(m).heads,
        lambda m: prisma.logit_lens(m, images).readout,
        lambda m: prisma.path_patching(m, images, images.flip(0), metric).values,
        lambda m: prisma.ablation(m, images, "attn.z", metric).values,
    )
    for call in calls:
        torch.testing.assert_close(call(model), call(same))
    with pytest.raises(PrismaError, match="found a backward"):
        prisma.edge_attribution(model, images, images.flip(0), metric)


def test_a_backward_hook_on_a_projection_is_called() -> None:
    """What it does to a gradient is in the attribution: the whole model's gradient, by a slow twin."""
    plain, model = (model_of("base").requires_grad_(False) for _ in range(2))
    images, metric = images_of(model, 2), LogitDiff(0, 1)
    model.blocks[1].attn.qkv.register_full_backward_hook(lambda m, inside, outside: (2 * inside[0],))
    found, expected = (prisma.edge_attribution(m, images, images.flip(0), metric) for m in (model, plain))
    to = [i for i, name in enumerate(found.metadata["receivers"]) if name.startswith("a1.")]
    torch.testing.assert_close(found.values[..., to], 2 * expected.values[..., to])


def test_a_compiled_container_is_the_container() -> None:
    """Nobody calls it, so compiling it changes nothing; its items must stay reachable."""
    model = model_of("base")
    images, blocks = images_of(model, 2), model.blocks
    before = prisma.record(model, images, "blocks.0.attn.z")
    model.blocks = torch.compile(model.blocks, backend="eager")
    assert model.blocks is blocks
    after = prisma.record(model, images, "blocks.0.attn.z")
    assert torch.equal(before[0], after[0]) and torch.equal(before[1]["blocks.0.attn.z"], after[1]["blocks.0.attn.z"])


def test_what_compiling_twice_makes_is_named() -> None:
    model = model_of("base")
    twice: Any = torch.compile(torch.compile(model, backend="eager"), backend="eager")
    for call in (lambda: prisma.run(twice, images_of(model, 1)), lambda: prisma.logit_lens(twice, images_of(model, 1))):
        with pytest.raises(PrismaError, match=r"found a function, which torch\.compile made: pass the model itself"):
            call()
