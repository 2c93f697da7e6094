"""Hooks, adapters and replaced parts on our own models: every analysis sees them, or says that it cannot.

Two slow twins: a whole run for every cell; and, for a change that weights can hold, the plain model that holds it.
"""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import prisma
from prisma import Add, LogitDiff, PrismaError, Set, ViT, Zero
from prisma.analysis.circuits.branches import messages
from prisma.analysis.circuits.circuit_run import run_edges
from prisma.analysis.circuits.graph import Graph
from prisma.blocks import RESUMABLE
from prisma.layers import MLP
from prisma.runs import attention_stream, finish, resume
from prisma.sites import AnyTap
from tests.test_plain import Lora
from tests.variants import images_of, model_of

METRIC = LogitDiff(0, 1)


class Steeper(MLP):
    """A user's own MLP, with the sites of ours."""

    def forward(self, x_BTM: Tensor, tap: AnyTap) -> Tensor:
        return 1.5 * super().forward(x_BTM, tap)


class Foreign(nn.Module):
    """A user's own MLP, without sites."""

    def forward(self, x_BTM: Tensor, tap: AnyTap) -> Tensor:
        return x_BTM.cumsum(1).tanh()  # of other tokens, too


def scaled(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    return 1.3 * output


def bent(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    """Something that no weight could hold, and no norm takes away."""
    return output + 0.3 * output.sin()


def mixed(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    """Something of all tokens."""
    return output + output.mean(1, keepdim=True)


def moved(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (args[0] + 0.3 * args[0].sin(), *args[1:])


def mixed_before(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (args[0] + args[0].mean(1, keepdim=True), *args[1:])


def replaced(model: nn.Module, name: str, part: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, part)


def hooked(name: str, hook: Callable[..., Any], register: str = "register_forward_hook") -> Callable[[ViT], Any]:
    return lambda model: getattr(model.get_submodule(name), register)(hook)


def with_lora(model: ViT, name: str) -> None:
    replaced(model, name, Lora(model.get_submodule(name)))  # type: ignore[arg-type]


def own_method(model: ViT) -> None:
    block: Any = model.blocks[1]
    block.forward = lambda x, tap, keep=None: bent(block, (), type(block).forward(block, x, tap, keep))


def steeper(model: ViT) -> None:
    mlp = Steeper(model.config, model.config.d_mlp).to(torch.float64)
    mlp.load_state_dict(model.blocks[1].mlp.state_dict())
    model.blocks[1].mlp = mlp


LEAVES = ("embed.patch", "blocks.1.ln1", "blocks.1.attn.qkv", "blocks.1.attn.q_norm", "blocks.1.attn.out",
          "blocks.1.ln2", "blocks.1.mlp.pre", "blocks.1.mlp.out", "blocks.1.scale2", "readout.ln_final")  # fmt: skip
WHOLES = ("", "embed", "blocks.0", "blocks.1", "blocks.1.attn", "blocks.1.mlp", "readout")
CHANGES: dict[str, Callable[[ViT], Any]] = {
    **{f"hook on {name}": hooked(name, bent) for name in (*LEAVES, *WHOLES)},
    **{f"pre-hook on {name}": hooked(name, moved, "register_forward_pre_hook") for name in WHOLES},
    **{f"hook over tokens on {name}": hooked(name, mixed) for name in ("blocks.1.attn.qkv", "blocks.1.mlp.out")},
    "pre-hook over tokens": hooked("readout", mixed_before, "register_forward_pre_hook"),
    "lora on qkv": partial(with_lora, name="blocks.1.attn.qkv"),
    "lora on out": partial(with_lora, name="blocks.1.attn.out"),
    "lora on mlp": partial(with_lora, name="blocks.1.mlp.pre"),
    "lora on patches": partial(with_lora, name="embed.patch"),
    "weight norm": lambda model: parametrizations.weight_norm(model.blocks[1].attn.qkv),
    "pruning": lambda model: prune.l1_unstructured(model.blocks[1].attn.qkv, "weight", 200),
    "method": own_method,
    "own mlp": steeper,
}  # fmt: skip


@pytest.fixture(params=CHANGES)
def changed(request: pytest.FixtureRequest) -> ViT:
    model = model_of("base").requires_grad_(False)
    before = model(images_of(model))
    CHANGES[request.param](model)
    assert (model(images_of(model)) - before).abs().max() > 1e-6 or request.param == "weight norm"
    return model


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)


SWEEPS = (("attn.z", "head"), ("mlp.post", "component"), ("resid_post", "token"), ("resid_pre", "component"))
SETS: dict[str, Any] = {"two": {"blocks.1.attn.z": {"head": 1}, "blocks.0.mlp_out": {}}}


@torch.no_grad()
def test_sweeps_are_whole_runs(changed: ViT) -> None:
    model = changed
    clean, corrupt = images_of(model, 2), images_of(model, 2, seed=5)
    for site, axis in SWEEPS:
        found = prisma.patch(model, clean, corrupt, site, METRIC, axis=axis)
        close(found.clean, METRIC(model(clean)))
        close(found.corrupt, METRIC(model(corrupt)))
        for layer, unit in ((0, 0), (1, found.values.shape[2] - 1)):
            name, where = f"blocks.{layer}.{site}", {} if axis == "component" else {axis: unit}
            value = prisma.record(model, corrupt, name)[1][name]
            close(found.values[:, layer, unit], METRIC(prisma.run(model, clean, {name: Set(value).at(**where)})))
    ablated = prisma.ablation(model, clean, "attn.z", METRIC)
    close(ablated.values[:, 1, 2], METRIC(prisma.run(model, clean, {"blocks.1.attn.z": Zero().at(head=2)})))
    sets = prisma.patch_sets(model, clean, corrupt, SETS, METRIC)
    values = prisma.record(model, corrupt, SETS["two"])[1]
    edits = {site: Set(values[site]).at(**at) for site, at in SETS["two"].items()}
    close(sets.values[:, 0], METRIC(prisma.run(model, clean, edits)))


@torch.no_grad()
def test_causal_tracing_is_whole_runs(changed: ViT) -> None:
    model, images = changed, images_of(changed, 1)
    coverage = torch.zeros(1, model.config.n_patches)
    coverage[:, 2:4] = 1
    options: dict[str, Any] = {"site": "mlp_out", "sever": "attn_out", "axis": "token", "samples": 1, "scale": 1.0}
    found = prisma.causal_tracing(model, images, coverage, metric=METRIC, **options)
    noise = torch.randn(1, 9, 12, generator=torch.Generator().manual_seed(0)).to(images) * 3
    added = torch.cat([torch.zeros(1, 1, 12).to(images), noise * coverage[..., None].to(images)], dim=1)
    clean = prisma.record(model, images, "blocks.*.mlp_out")[1]
    corrupt, was = prisma.record(model, images, "blocks.*.attn_out", {"embed": Add(added)})
    close(found.corrupt, METRIC(corrupt))
    for layer, token in ((0, 3), (1, 0), (1, 4)):
        edits = {"embed": Add(added)}
        edits[f"blocks.{layer}.mlp_out"] = Set(clean[f"blocks.{layer}.mlp_out"]).at(token=token)
        edits |= {name: Set(x).at(token=token) for name, x in was.items() if int(name.split(".")[1]) >= layer}
        close(found.indirect[:, layer, token], METRIC(prisma.run(model, images, edits)) - METRIC(corrupt))


@torch.no_grad()
def test_a_resumed_run_is_a_whole_run(changed: ViT) -> None:
    model, images = changed, images_of(changed, 2)
    stream = attention_stream(model, 1)
    for site in RESUMABLE:
        acts = prisma.record(model, images, {f"blocks.1.{site}", "blocks.1.resid_mid", stream})[1]
        new = acts[f"blocks.1.{site}"] * 0.5 + 0.1
        found = resume(model, images, 1, site, new, acts[stream], acts["blocks.1.resid_mid"])
        close(found, prisma.run(model, images, {f"blocks.1.{site}": Set(new)}))


MERGED: dict[str, tuple[Callable[[ViT], Any], Callable[[ViT], None]]] = {}
"""Change -> the change, and the same in a plain model's weights."""


def scale_weights(model: ViT, name: str, by: float) -> None:
    for weight in model.get_submodule(name).parameters():
        weight.mul_(by)


def merge_lora(model: ViT, name: str) -> None:
    layer: Any = model.get_submodule(name)
    lora = Lora(layer)
    layer.weight.add_(lora.up @ lora.down)


for leaf in ("blocks.1.ln1", "blocks.1.attn.qkv", "blocks.0.attn.out", "blocks.0.mlp.out", "blocks.1.ln2"):
    MERGED[f"hook on {leaf}"] = hooked(leaf, scaled), partial(scale_weights, name=leaf, by=1.3)
for leaf in ("blocks.1.attn.qkv", "blocks.0.attn.out", "blocks.0.mlp.pre"):
    MERGED[f"lora on {leaf}"] = partial(with_lora, name=leaf), partial(merge_lora, name=leaf)


@pytest.mark.parametrize(
    ("case", "variant"),
    [*((case, "base") for case in MERGED), *((case, "everything_post") for case in MERGED if "attn" in case)],
)
def test_graphs_of_branches_call_what_is_there(case: str, variant: str) -> None:
    plain = model_of(variant).requires_grad_(False)
    model, (change, merge) = deepcopy(plain), MERGED[case]
    with torch.no_grad():
        change(model)
        merge(plain)
    clean, corrupt = images_of(model, 2), images_of(model, 2, seed=5)
    close(model(clean), plain(clean))
    for analysis in (prisma.path_patching, prisma.edge_attribution, prisma.attribution_patching):
        found, expected = (analysis(m, clean, corrupt, METRIC) for m in (model, plain))
        for name in expected.axes:
            torch.testing.assert_close(
                getattr(found, name), getattr(expected, name), rtol=1e-9, atol=1e-10, equal_nan=True
            )
    graph = Graph(model.config)
    some = graph.edges & (torch.rand(graph.edges.shape, generator=torch.Generator().manual_seed(0)) < 0.5)
    close(*(run_edges(m, clean, some, messages(m, corrupt)[1]) for m in (model, plain)))


@pytest.mark.parametrize("name", ["", "blocks.1", "blocks.1.attn"])
def test_graphs_of_branches_refuse_what_only_a_whole_part_has(name: str) -> None:
    model = model_of("base").requires_grad_(False)
    model.get_submodule(name).register_forward_hook(scaled)
    images = images_of(model, 2)
    for analysis in (prisma.path_patching, prisma.edge_attribution, prisma.circuit_discovery, prisma.head_graph):
        with pytest.raises(PrismaError, match=rf"expected {name or 'the model'} to .* found a forward hook, scaled"):
            analysis(model, images, images.flip(0), METRIC)
            pytest.fail(f"{analysis} takes it")


def test_a_site_that_no_part_computes_is_named() -> None:
    model = model_of("base")
    model.blocks[1].mlp = Foreign()
    images = images_of(model, 2)
    for read, edit in (("blocks.1.mlp.post", {}), ((), {"blocks.1.mlp.*": Zero()})):
        with pytest.raises(PrismaError, match=r"expected the model to compute blocks\.1\.mlp\.p.* was replaced by"):
            prisma.record(model, images, read, edit)
    with pytest.raises(PrismaError, match=r"expected the model to compute blocks\.1\.mlp\.post"):
        prisma.ablation(model, images, "mlp.post", METRIC)
    found = prisma.sweep(model, images, images.flip(0), "attn.z", METRIC)
    z = prisma.record(model, images.flip(0), "blocks.0.attn.z")[1]["blocks.0.attn.z"]
    close(found[0, 1], METRIC(prisma.run(model, images, {"blocks.0.attn.z": Set(z).at(head=1)})).mean())


READ_WEIGHTS: dict[str, tuple[str, Callable[[ViT, Tensor], Any]]] = {
    "W_Q": ("blocks.1.attn.qkv", lambda m, x: m.W_Q),
    "W_O": ("blocks.1.attn.out", lambda m, x: m.W_O),
    "W_out": ("blocks.1.mlp.out", lambda m, x: m.W_out),
    "composition": ("blocks.1.ln1", lambda m, x: prisma.composition(m)),
    "composition of layer scale": ("blocks.0.scale1", lambda m, x: prisma.composition(m)),
    "head directions": ("blocks.1.attn", lambda m, x: prisma.head_directions(m)),
    "class values": ("readout.ln_final", lambda m, x: prisma.class_values(m)),
    "class values of neurons": ("blocks.0.mlp", lambda m, x: prisma.class_values(m)),
    "direct logit attribution": ("blocks.0", lambda m, x: prisma.direct_logit_attribution(m, x, METRIC)),
    "direct path of the patches": ("embed.patch", lambda m, x: prisma.direct_logit_attribution(m, x, METRIC)),
    "head similarity": ("blocks.1.attn.out", lambda m, x: prisma.head_similarity(m, x, measure="cka")),
    "norm-weighted attention": ("blocks.0.scale1", lambda m, x: prisma.norm_weighted_attention(m, x)),
    "single heads": ("blocks.0.attn.out", lambda m, x: prisma.record(m, x, "blocks.0.attn.result")),
    "lens": ("", lambda m, x: prisma.logit_lens(m, x)),
    "starts inside": ("", lambda m, x: finish(m, m.embed(x), x, start=0)),
}


@pytest.mark.parametrize("case", READ_WEIGHTS)
def test_what_is_computed_from_weights_names_the_part_that_has_more(case: str) -> None:
    name, read = READ_WEIGHTS[case]
    model = model_of("base").requires_grad_(False)
    images = images_of(model, 2)
    read(model, images)
    handle = model.get_submodule(name).register_forward_hook(scaled)
    short = name.removeprefix("blocks.0.attn.") if case == "single heads" else name
    with pytest.raises(
        PrismaError, match=rf"expected {short or 'the model'} to compute .*; found a forward hook, scaled"
    ):
        read(model, images)
    handle.remove()
    read(model, images)


def test_the_direct_path_takes_what_is_recorded_from_any_part() -> None:
    model = model_of("base").requires_grad_(False)
    with_lora(model, "blocks.1.attn.qkv")
    model.blocks[0].ln2.register_forward_hook(scaled)
    images = images_of(model, 2)
    found = prisma.direct_logit_attribution(model, images, METRIC)
    close(found.components.sum(1), METRIC(model(images)))


def test_parametrized_weights_are_the_ones_that_compute() -> None:
    model, plain = (model_of("base").requires_grad_(False) for _ in range(2))
    for block in model.blocks:
        parametrizations.weight_norm(block.attn.qkv)
    with torch.no_grad():
        for block, other in zip(model.blocks, plain.blocks, strict=True):
            block.attn.qkv.parametrizations.weight.original0.mul_(1.2)
            other.attn.qkv.weight.mul_(1.2)
    close(model.W_K, plain.W_K)
    close(*(prisma.composition(m).q for m in (model, plain)))
