"""AtP* is one softmax for every patched query and key, and one run with a cut path for every layer left out."""

from itertools import product

import pytest
import torch
from torch import Tensor

from prisma import LogitDiff, PrismaError, ViT, run
from prisma.analysis.circuits.atp_star import AtpStar, atp_star, one_key_each
from prisma.analysis.circuits.attribution_patching import attribution_patching
from prisma.metrics import Rank
from prisma.runs import record
from tests.analysis.circuits.test_attribution_patching import linear_model
from tests.analysis.circuits.test_circuit_run import pairs_of
from tests.analysis.circuits.test_edge_attribution import metric
from tests.planted_circuits import images, induction
from tests.variants import images_of, model_of

VARIANTS = ["base", "qk_norm", "rotary", "score_bias", "norm_post", "parallel", "sub_norms", "attention_only"]


def gradients_at(model: ViT, target: Tensor, sites: list[str], left_out: int | None) -> dict[str, Tensor]:
    """Of the metric at some sites, in a run in which the branches of one layer add a constant to the stream."""
    constants = {}
    if left_out is not None:
        names = [f"blocks.{left_out}.attn_out", f"blocks.{left_out}.mlp_out"][: 1 + (model.config.d_mlp > 0)]
        constants = {name: x.detach() for name, x in record(model, target, names)[1].items()}
    leaves = {}

    def start(name: str, x: Tensor) -> Tensor:
        leaves[name] = x.detach().requires_grad_() if not x.requires_grad else x
        leaves[name].retain_grad()
        return leaves[name]

    edits = {name: lambda x, name=name: start(name, x) for name in sites}
    edits |= {name: lambda x, y=y, name=name: y + 0 * start(name, x) for name, y in constants.items()}
    with torch.enable_grad():
        values = metric(run(model, target, edits))
        values.sum().backward()
    return {name: torch.zeros_like(x) if x.grad is None else x.grad for name, x in leaves.items()}


def slow(model: ViT, target: Tensor, donor: Tensor, left_out: int | None) -> dict[str, Tensor]:
    """Every query and key patched alone: its head's pattern is recomputed, and multiplied by the gradient at it."""
    found: dict[str, list[Tensor]] = {}
    for layer in range(model.config.n_layers):
        name = f"blocks.{layer}.attn"
        sites = [f"{name}.{x}" for x in ("q", "k", "v", "z", "pattern")]
        (_, own), (_, new) = (record(model, x, sites) for x in (target, donor))
        g = gradients_at(model, target, [f"{name}.pattern", f"{name}.z", f"{name}.v"], left_out)
        part = {x: torch.zeros(len(target), model.config.n_heads, model.config.n_tokens).double() for x in "qkv"}
        part["z"] = ((new[f"{name}.z"] - own[f"{name}.z"]) * g[f"{name}.z"]).sum(-1).mT
        part["v"] = ((new[f"{name}.v"] - own[f"{name}.v"]) * g[f"{name}.v"]).sum(-1).mT
        for side, token in product("qk", range(model.config.n_tokens)):
            patched = own[f"{name}.{side}"].clone()
            patched[:, token] = new[f"{name}.{side}"][:, token]
            pattern = record(model, target, f"{name}.pattern", edit={f"{name}.{side}": lambda x, y=patched: y})[1]
            change = pattern[f"{name}.pattern"] - own[f"{name}.pattern"]
            part[side][:, :, token] = (change * g[f"{name}.pattern"]).sum((-1, -2))
        pattern = record(model, target, f"{name}.pattern", edit={f"{name}.k": lambda x, y=new[f"{name}.k"]: y})[1]
        part["keys"] = ((pattern[f"{name}.pattern"] - own[f"{name}.pattern"]) * g[f"{name}.pattern"]).sum((-1, -2))
        for side, value in part.items():
            found.setdefault(side, []).append(value)
    return {side: torch.stack(values, dim=1) for side, values in found.items()}


ARRAYS = {"q": "query_tokens", "k": "key_tokens", "v": "value_tokens", "z": "head_tokens"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_is_the_slow_twin(variant: str) -> None:
    model = model_of(variant)
    clean, corrupt = pairs_of(model, 2)
    found, expected = atp_star(model, clean, corrupt, metric, grad_drop=False), slow(model, clean, corrupt, None)
    for side, array in ARRAYS.items():
        torch.testing.assert_close(getattr(found, array), expected[side], rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(found.sides[:, :, 1], expected["keys"], rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(found.sides[:, :, 0], expected["q"].sum(-1), rtol=1e-9, atol=1e-10)
    plain = attribution_patching(model, clean, corrupt, metric)
    torch.testing.assert_close(found.heads, plain.heads)
    if plain.mlp_tokens is not None:
        torch.testing.assert_close(found.mlp_tokens, plain.mlp_tokens)


@pytest.mark.parametrize("variant", ["base", "norm_post", "parallel", "attention_only", "layer_scale"])
def test_grad_drop_is_one_cut_run_for_each_layer(variant: str) -> None:
    model = model_of(variant)
    clean, corrupt = pairs_of(model, 2)
    found = atp_star(model, clean, corrupt, metric)
    parts = [slow(model, clean, corrupt, layer) for layer in range(2)]
    for side, array in ARRAYS.items():
        expected = sum(part[side].abs() for part in parts)
        torch.testing.assert_close(getattr(found, array), expected, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(found.sides[:, :, 1], sum(part["keys"].abs() for part in parts))
    torch.testing.assert_close(found.heads, sum(part["z"].sum(-1).abs() for part in parts))
    if found.mlp_tokens is not None:  # with the MLP's own layer left out, nothing of it is left
        moved = [record(model, x, "blocks.0.mlp_out")[1]["blocks.0.mlp_out"] for x in (clean, corrupt)]
        slope = gradients_at(model, clean, ["blocks.0.mlp_out"], 1)["blocks.0.mlp_out"]
        torch.testing.assert_close(found.mlp_tokens[:, 0], ((moved[1] - moved[0]) * slope).sum(-1).abs())


def test_in_a_linear_model_it_is_patching_and_grad_drop_its_direct_part() -> None:
    model = linear_model()
    clean, corrupt = pairs_of(model, 2)
    found = atp_star(model, clean, corrupt, LogitDiff(0, 1), grad_drop=False)
    for layer, head in product(range(2), range(3)):
        site = f"blocks.{layer}.attn.z"
        value = record(model, corrupt, site)[1][site]
        patched = run(
            model,
            clean,
            {site: lambda x, y=value, h=head: torch.cat([x[:, :, :h], y[:, :, h : h + 1], x[:, :, h + 1 :]], 2)},
        )
        exact = LogitDiff(0, 1)(patched) - found.clean
        torch.testing.assert_close(found.heads[:, layer, head], exact)
        torch.testing.assert_close(found.sides[:, layer, 2, head], exact)  # its pattern is constant: all is of values
    assert found.sides[:, :, :2].abs().max() < 1e-12


def test_a_saturated_pattern_is_missed_by_the_gradient_and_not_by_the_fix() -> None:
    """The planted induction head looks at one token with a weight of 1 - 1e-15: no gradient passes through. With the
    other image's keys it looks elsewhere, and the answer is another."""
    model = induction()
    with torch.no_grad():
        model.blocks[1].get_submodule("attn").qkv.weight[:24] *= 6  # the queries of layer 1
    clean, corrupt = images([1, 0, 2, 3, 1]), images([1, 3, 2, 0, 1])
    answer = LogitDiff(2, 1)
    name = "blocks.1.attn"
    own, new = (record(model, x, [f"{name}.k", f"{name}.q"])[1] for x in (clean, corrupt))
    exact = answer(run(model, clean, {f"{name}.k": lambda x: new[f"{name}.k"]})) - answer(model(clean))
    slope = gradients_at_key(model, clean, answer, name)
    plain = ((new[f"{name}.k"] - own[f"{name}.k"]) * slope).sum((1, 3))[:, 2]
    found = atp_star(model, clean, corrupt, answer, grad_drop=False).sides[:, 1, 1, 2]
    assert exact.item() < -1.9 and plain.abs().item() < 1e-6
    torch.testing.assert_close(found, exact)


def gradients_at_key(model: ViT, target: Tensor, answer: LogitDiff, name: str) -> Tensor:
    keys: list[Tensor] = []

    def start(x: Tensor) -> Tensor:
        keys.append(x.detach().requires_grad_())
        return keys[0]

    with torch.enable_grad():
        return torch.autograd.grad(answer(run(model, target, {f"{name}.k": start})).sum(), keys)[0]


def test_one_key_each_for_any_scores() -> None:
    """Also where one weight is 1 to within rounding, before the key is patched or after."""
    draw = torch.Generator().manual_seed(0)
    for size in (1.0, 30.0, 400.0):
        scores, new, g = (size * torch.randn(5, 4, 7, generator=draw).double() for _ in range(3))
        found = one_key_each(scores, new, g)
        for key in range(7):
            patched = scores.clone()
            patched[..., key] = new[..., key]
            expected = ((patched.softmax(-1) - scores.softmax(-1)) * g).sum(-1)
            torch.testing.assert_close(found[..., key], expected, rtol=1e-8, atol=1e-10)
    assert torch.equal(one_key_each(scores[..., :1], new[..., :1], g[..., :1]), torch.zeros(5, 4, 1).double())


def test_grad_drop_sees_what_cancels() -> None:
    """Head 0 of layer 0 writes x directly to the answer, and the MLP of layer 1 takes it away: the gradient is 0."""
    model = model_of("norm_none")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.embed.patch.weight.normal_(generator=torch.Generator().manual_seed(0))
        attention, mlp = model.blocks[0].get_submodule("attn"), model.blocks[1].get_submodule("mlp")
        sides, out = attention.qkv.weight.unflatten(0, (3, 3, 4)), attention.out.weight.unflatten(1, (3, 4))
        sides[2, 0, 0, 1] = out[0, 0, 0] = 1
        big = 50.0  # so that the activation is the identity
        mlp.pre.weight[0, 0], mlp.pre.bias[0], mlp.out.weight[0, 0] = 1, big, -1
        mlp.out.bias[0] = big
        model.readout.head.weight[0, 0] = 1
    clean, corrupt = images_of(model, 2), images_of(model, 2, seed=2)
    plain = atp_star(model, clean, corrupt, LogitDiff(0, 1), grad_drop=False)
    dropped = atp_star(model, clean, corrupt, LogitDiff(0, 1))
    assert plain.heads.abs().max() < 1e-9
    assert dropped.heads[:, 0, 0].min() > 1e-3 and dropped.heads[:, 0, 1:].abs().max() < 1e-12


def test_chunks_make_no_difference(tmp_path: object) -> None:
    model = model_of("base")
    clean, corrupt = pairs_of(model, 3)
    answers = LogitDiff([0, 1, 2], [4, 3, 0])
    whole, chunks = (atp_star(model, clean, corrupt, answers, batch=n) for n in (None, 1))
    for name, values in whole.arrays.items():
        torch.testing.assert_close(chunks.arrays[name], values, rtol=1e-10, atol=1e-10)
    again = AtpStar.from_npz(whole.to_npz(f"{tmp_path}/atp.npz"))
    assert torch.equal(again.sides, whole.sides) and whole.plot().axes


def test_bad_input_is_refused() -> None:
    model = model_of("one_layer")
    clean, corrupt = pairs_of(model, 2)
    with pytest.raises(PrismaError, match="found n_layers=1: use grad_drop=False"):
        atp_star(model, clean, corrupt, metric)
    assert atp_star(model, clean, corrupt, metric, grad_drop=False).heads.shape == (2, 1, 3)
    video = model_of("divided")
    with pytest.raises(PrismaError, match="found divided attention"):
        atp_star(video, images_of(video), images_of(video), metric)
    with pytest.raises(PrismaError, match="a metric that has a gradient; found Rank"):
        atp_star(model_of("base"), clean, corrupt, Rank(0))
    bare = model_of("no_layers")
    with pytest.raises(PrismaError, match="found n_layers=0"):
        atp_star(bare, images_of(bare), images_of(bare), metric)
