"""Direct logit attribution: the parts add up to the logit, and each is what pushing it through the model says."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from prisma import PrismaError
from prisma.analysis.attribution.direct_logit_attribution import NORMS, DirectLogitAttribution, direct_logit_attribution
from prisma.metrics import Logit, LogitDiff, Metric, Probability, Rank
from prisma.pretrained.zero_shot import PromptHead
from prisma.runs import record
from prisma.vit import ViT
from tests.variants import ANALYSED, images_of, largest, model_of

PAIR = LogitDiff([0, 3], 1)  # of two images
THREE = LogitDiff([0, 3, 2], 1)


LIVE = ["norm_none", "norm_post", "norm_res_post", "norm_pooled_mean", "norm_patches", "norm_embed_post", "rms"]
LIVE += ["pool_class_mean", "pool_attention_gated", "pool_attention_sub_norms", "sub_norms", "parallel", "no_layers"]
LIVE += ["divided_everything", "everything_post"]
ADD_UP = [(variant, torch.float64, 1e-10) for variant in ANALYSED]
ADD_UP += [(variant, torch.float32, 1e-5) for variant in ["base", *LIVE]]  # every way in which parts are normalised


@pytest.mark.parametrize(("variant", "dtype", "tolerance"), ADD_UP)
def test_the_parts_add_up_to_the_logit(variant: str, dtype: torch.dtype, tolerance: float) -> None:
    model = model_of(variant, dtype)
    images = images_of(model, n=3)
    found = direct_logit_attribution(model, images, THREE, batch=2)
    logits = model(images)
    near = {"rtol": 0, "atol": tolerance * max(1.0, largest(logits))}
    torch.testing.assert_close(found.value, THREE(logits), **near)
    torch.testing.assert_close(found.components.sum(1), THREE(logits), **near)
    names, n_stream = found.metadata["components"], found.tokens.shape[1]
    assert len(set(names)) == len(names) == found.components.shape[1]
    torch.testing.assert_close(found.tokens.sum(-1), found.components[:, :n_stream], **near)
    kinds = {"attn": found.heads, "mlp": found.neurons, "time": found.time_heads}
    for row, name in enumerate(names):
        layer, kind = name.split(".")[1], name.split(".")[-1]
        if name.startswith("blocks.") and kind in kinds:
            units = kinds[kind]
            assert units is not None
            torch.testing.assert_close(units[:, int(layer)].sum(-1), found.components[:, row], **near)
    for by_source, heads in ((found.sources, found.heads), (found.time_sources, found.time_heads)):
        assert (by_source is None) == (heads is None)
        if by_source is not None and heads is not None:
            torch.testing.assert_close(by_source.sum(-1), heads, **near)
    if found.pool_neurons is not None:
        pooling = names.index("readout.attention_pool.mlp")
        torch.testing.assert_close(found.pool_neurons.sum(-1), found.components[:, pooling], **near)


@pytest.mark.parametrize("variant", LIVE)
def test_integrated_parts_add_up_to_the_logit_less_the_baseline_s(variant: str) -> None:
    model = model_of(variant)
    images = images_of(model, n=3)
    found = direct_logit_attribution(model, images, THREE, norms="integrated", steps=32, batch=2)
    near = {"rtol": 0, "atol": 1e-8 * max(1.0, largest(found.value))}
    torch.testing.assert_close(found.components.sum(1) + found.baseline, THREE(model(images)), **near)
    biases = [row for row, name in enumerate(found.metadata["components"]) if name.endswith("bias")]
    assert largest(found.components[:, biases]) < 1e-12 if biases else True  # every image has them
    assert found.sources is None


class Pushed:
    """The slow twin: one part, pushed forward to the logits; each norm divides by what it divided the whole by."""

    def __init__(self, model: ViT, images: Tensor) -> None:
        self.model, self.c = model, model.config
        sites = ["embed", "blocks.*.resid_pre", "blocks.*.resid_mid", "blocks.*.resid_post", "blocks.*.attn_out"]
        sites += ["blocks.*.attn.result", "blocks.*.mlp.post", "blocks.*.mlp_out"]
        sites += ["pool.pattern"] if self.c.pool == "attention" else []
        self.logits, self.acts = record(model, images, sites)

    def norm(self, module: nn.Module, whole: Tensor, part: Tensor) -> Tensor:
        """One vector after the other."""
        assert isinstance(module, nn.LayerNorm | nn.RMSNorm)
        centred = isinstance(module, nn.LayerNorm)
        out = torch.empty_like(part)
        for i in product(*map(range, part.shape[:-1])):
            w, p = whole[i], part[i]
            middle, own = (w.mean(), p.mean()) if centred else (0.0, 0.0)
            out[i] = (p - own) / math.sqrt(((w - middle) ** 2).mean().item() + (module.eps or 0)) * module.weight
        return out

    def added(self, part: Tensor, layer: int, branch: int) -> Tensor:
        """Logits of what a branch writes to the stream, its layer scale and the norm of its output behind it."""
        for at, which in product(range(layer, self.c.n_layers), (1, 2)):
            if self.c.norm == "post" and (at, which) >= (layer, branch):
                name = f"blocks.{at}"
                before, out = ("resid_pre", "attn_out") if which == 1 else ("resid_mid", "mlp_out")
                whole = self.acts[f"{name}.{before}"] + self.acts[f"{name}.{out}"]
                part = self.norm(self.model.blocks[at].get_submodule(f"ln{which}"), whole, part)
        return self.read_out(part)

    def branch(self, part: Tensor, layer: int, branch: int) -> Tensor:
        """Logits of what attention or the MLP writes before its norm and layer scale."""
        block = self.model.blocks[layer]
        if self.c.norm == "res_post":
            results, mlp = self.acts[f"blocks.{layer}.attn.result"], block.get_submodule("mlp.out")
            attn_bias = block.get_parameter("attn.out.bias")
            whole = results.sum(2) + attn_bias if branch == 1 else mlp(self.acts[f"blocks.{layer}.mlp.post"])
            part = self.norm(block.get_submodule(f"ln{branch}"), whole, part)
        return self.added(block.get_submodule(f"scale{branch}")(part), layer, branch)

    def read_out(self, part: Tensor) -> Tensor:
        readout = self.model.readout
        whole = self.acts[f"blocks.{self.c.n_layers - 1}.resid_post"]
        if readout.ln_final is not None and not self.c.norm_pooled:
            part = self.norm(readout.ln_final, whole, part)
        part = self.pool(part)
        if readout.ln_final is not None and self.c.norm_pooled:
            part = self.norm(readout.ln_final, self.pool(whole), part)
        return part @ readout.head.weight.T

    def pool(self, x: Tensor) -> Tensor:
        mean = x[:, self.c.n_prefix :].mean(1)
        if self.c.pool == "attention":
            pool = self.model.readout.attention_pool
            assert pool is not None
            v = (x[:, self.c.n_prefix :] @ pool.v.weight.T).unflatten(-1, pool.split)
            heads = [self.acts["pool.pattern"][:, h] @ v[:, :, h] for h in range(pool.split[0])]
            return (torch.cat(heads, dim=-1) @ pool.out.weight.T)[:, 0]
        pools: dict[str, Callable[[], Tensor]] = {
            "class": lambda: x[:, 0],
            "mean": lambda: mean,
            "class_mean": lambda: torch.cat([x[:, 0], mean], dim=-1),
            "distilled": lambda: torch.cat([x[:, 0], x[:, 1]], dim=-1),
        }
        return pools[self.c.pool]()


TWINS = [
    "base",
    "norm_post",
    "norm_res_post",
    "everything_post",
    "norm_none",
    "layer_scale",
    "parallel",
    "no_class_token",
]
TWINS += ["pool_class_mean", "pool_distilled", "norm_pooled_mean", "pool_attention", "no_norm_final"]


@pytest.mark.parametrize("variant", TWINS)
@torch.no_grad()
def test_heads_neurons_and_biases_are_what_pushing_them_says(variant: str) -> None:
    model = model_of(variant)
    twin = Pushed(model, images_of(model))
    found = direct_logit_attribution(model, images_of(model), PAIR)
    assert found.heads is not None
    assert found.neurons is not None
    names = found.metadata["components"]
    for layer in range(model.config.n_layers):
        results = twin.acts[f"blocks.{layer}.attn.result"]
        post, out = twin.acts[f"blocks.{layer}.mlp.post"], model.blocks[layer].get_submodule("mlp.out")
        for head in range(model.config.n_heads):
            same(found.heads[:, layer, head], PAIR(twin.branch(results[:, :, head], layer, 1)))
        for neuron in (0, 3):
            wrote = post[..., neuron, None] * out.weight[:, neuron]
            same(found.neurons[:, layer, neuron], PAIR(twin.branch(wrote, layer, 2)))
        for branch, name in ((1, "attn.out.bias"), (2, "mlp.out.bias")):
            bias = model.blocks[layer].get_parameter(name).expand_as(results[:, :, 0])
            row = names.index(f"blocks.{layer}.{name}")
            same(found.components[:, row], PAIR(twin.branch(bias, layer, branch)))
            only = torch.zeros_like(bias)
            only[:, 2] = bias[:, 2]
            same(found.tokens[:, row, 2], PAIR(twin.branch(only, layer, branch)))


@pytest.mark.parametrize("variant", ["base", "no_class_token", "norm_none", "layer_scale", "norm_res_post", "parallel"])
@torch.no_grad()
def test_sources_are_the_values_that_a_head_reads_times_its_pattern(variant: str) -> None:
    model = model_of(variant)
    images = images_of(model)
    twin = Pushed(model, images)
    _, acts = record(model, images, ["blocks.1.attn.v", "blocks.1.attn.pattern"])
    found = direct_logit_attribution(model, images, PAIR).sources
    assert found is not None
    weight = model.blocks[1].get_parameter("attn.out.weight").unflatten(1, (model.config.n_heads, -1))
    for head, token in product(range(model.config.n_heads), (0, 4)):
        read = acts["blocks.1.attn.pattern"][:, head, :, token, None] * acts["blocks.1.attn.v"][:, None, token, head]
        same(found[:, 1, head, token], PAIR(twin.branch(read @ weight[:, head].T, 1, 1)))


def same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_integrated_is_the_line_integral_of_the_final_norm() -> None:
    """One norm, after pooling: the midpoint rule with many points, and the norm's Jacobian written out."""
    model = model_of("norm_pooled_class", n_layers=1)
    images, others = images_of(model, n=2), images_of(model, n=4, seed=5)
    found = direct_logit_attribution(model, images, Logit(2), norms="integrated", baseline=others)
    norm = model.readout.ln_final
    assert isinstance(norm, nn.LayerNorm)
    sites = ["blocks.0.attn.result", "blocks.0.resid_post"]
    (_, acts), (_, start) = record(model, images, sites), record(model, others, sites)
    x, x0 = acts["blocks.0.resid_post"][:, 0], start["blocks.0.resid_post"][:, 0].mean(0)
    head = model.readout.head.weight[2] * norm.weight
    assert found.heads is not None
    for image, which in product(range(2), range(2)):
        part = acts["blocks.0.attn.result"][image, 0, which] - start["blocks.0.attn.result"][:, 0, which].mean(0)
        part = part - part.mean()
        total, points = 0.0, 500
        for i in range(points):
            at = x0 + (i + 0.5) / points * (x[image] - x0)
            at = at - at.mean()
            sigma = (at.square().mean() + norm.eps).sqrt()
            jacobian = part / sigma - at * (at @ part) / len(at) / sigma**3
            total += (head @ jacobian).item() / points
        assert found.heads[image, 0, which].item() == pytest.approx(total, rel=1e-5, abs=1e-7)
    torch.testing.assert_close(
        found.baseline, (norm(x0) @ model.readout.head.weight[2] + model.readout.head.bias[2]).expand(2)
    )


def test_a_part_that_only_lengthens_the_stream_gets_nothing_from_live_norms() -> None:
    """Planted: positions are one direction, and patches write along it. What a norm takes away, no part is credited."""
    model = model_of("no_layers", class_token=False, pool="mean", norm_eps=1e-12)
    direction, positions = torch.randn(12, dtype=torch.float64), model.embed.positions
    assert positions is not None
    with torch.no_grad():
        positions.copy_(direction.expand_as(positions))
        model.embed.patch.weight.copy_(direction[:, None].expand(-1, 8))
        model.embed.patch.bias.zero_()
    images = images_of(model, n=3).abs()
    frozen, integrated = (direct_logit_attribution(model, images, THREE, norms=norms) for norms in NORMS)
    patch = frozen.metadata["components"].index("embed.patch")
    assert frozen.components[[0, 1], patch].abs().min() > 0.1
    assert largest(integrated.components) < 1e-10
    same(integrated.baseline, frozen.value)


METRICS: dict[str, tuple[Metric, Callable[[Tensor], Tensor]]] = {
    "class": (Logit(2), lambda logits: logits[:, 2]),
    "class of each image": (Logit([4, 0, 2]), lambda logits: logits[[0, 1, 2], [4, 0, 2]]),
    "difference": (LogitDiff(1, 0), lambda logits: logits[:, 1] - logits[:, 0]),
    "direction": (
        lambda logits: logits @ torch.arange(5.0).to(logits),
        lambda logits: logits @ torch.arange(5.0).to(logits),
    ),
    "against the mean": (lambda logits: logits[:, 0] - logits.mean(1), lambda logits: logits[:, 0] - logits.mean(1)),
}


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("batch", [1, 2, 8])
def test_any_direction_in_class_space(name: str, batch: int) -> None:
    metric, expected = METRICS[name]
    model = model_of("pool_class_mean")
    images = images_of(model, n=3)
    found = direct_logit_attribution(model, images, metric, batch=batch)
    same(found.components.sum(1), expected(model(images)))
    same(found.value, expected(model(images)))


@pytest.mark.parametrize("bias", [False, True])
def test_a_clip_whose_classes_are_prompts(bias: bool) -> None:
    """Its head divides by the length of the features, which is frozen like any norm."""
    model = model_of("clip", head_bias=bias)
    head = model.readout.head
    directions = torch.nn.functional.normalize(torch.randn(4, 5, dtype=torch.float64), dim=-1)
    model.readout.add_module("head", PromptHead(head, directions, 9.0, -2.0))
    model.config = replace(model.config, n_classes=4)
    images = images_of(model)
    for norms in ("frozen", "integrated"):
        found = direct_logit_attribution(model, images, PAIR, norms=norms)
        same(found.components.sum(1) + found.baseline, PAIR(model(images)))
        assert ("readout.head.projection.bias" in found.metadata["components"]) is bias
    found = direct_logit_attribution(model, images, Logit(3))
    same(found.components[:, -1], torch.tensor([-2.0, -2.0], dtype=torch.float64))


def test_a_planted_head_has_all_of_the_logit() -> None:
    """No norms, no biases; one head of one layer writes to the class token what patch 2 holds."""
    model = model_of("attention_only_norm_none", n_classes=12, head_bias=False, class_token=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.readout.head.weight.copy_(torch.eye(12))
        attn = model.blocks[1].get_submodule("attn")
        attn.get_parameter("qkv.weight")[24 + 4 : 24 + 8, :4] = torch.eye(4)  # v of head 1 reads coordinates 0 to 3
        attn.get_parameter("out.weight")[8:, 4:8] = torch.eye(4)  # and writes to 8 to 11
        model.embed.patch.weight[:4, :4] = torch.eye(4)
    images = torch.zeros(1, *model.config.input_shape, dtype=torch.float64)
    images[0, 0, :2, 4:] = torch.tensor([[1.0, 2.0], [3.0, 4.0]])  # patch 2: token 3
    found = direct_logit_attribution(model, images, lambda logits: logits[:, 11])
    assert found.heads is not None
    assert found.sources is not None
    expected = torch.zeros(1, 2, 3, 10, dtype=torch.float64)
    expected[0, 1, 1, 3] = 4 / 10  # the head looks at ten tokens alike
    torch.testing.assert_close(found.sources, expected)
    torch.testing.assert_close(found.value, torch.tensor([0.4], dtype=torch.float64))
    assert found.top(1) == [("blocks.1.attn", pytest.approx(0.4))]
    assert found.top(1, "heads") == [("layer 1, head 1", pytest.approx(0.4))]
    assert found.top(1, "sources", image=0) == [("layer 1, head 1, token 3", pytest.approx(0.4))]
    assert found.top(1, "tokens") == [("blocks.1.attn, token 0", pytest.approx(0.4))]


def test_top_goes_by_size_and_asks_for_an_array_that_is_there() -> None:
    model = model_of("pool_attention")
    found = direct_logit_attribution(model, images_of(model), PAIR)
    top = found.top(500)
    assert len(top) == found.components.shape[1]
    assert [abs(value) for _, value in top] == sorted((abs(value) for _, value in top), reverse=True)
    assert dict(top)["readout.head.bias"] == pytest.approx(found.components[:, -1].mean().item())
    with pytest.raises(PrismaError, match=r"expected one of components, tokens, heads.*; found 'value'"):
        found.top(3, "value")


def test_it_is_a_result(tmp_path: Path) -> None:
    model = model_of("divided")
    found = direct_logit_attribution(model, images_of(model), PAIR)
    assert json.loads(json.dumps(found.to_dict()))["metadata"]["norms"] == "frozen"
    again = DirectLogitAttribution.from_npz(found.to_npz(tmp_path / "found.npz"))
    assert again.top(3) == found.top(3)


def test_a_picture_of_every_array() -> None:
    model = model_of("pool_attention", n_layers=8)  # more components than bars
    found = direct_logit_attribution(model, images_of(model), PAIR)
    (panel,) = found.plot().axes
    assert sum(bar.get_width() for bar in panel.patches) == pytest.approx(found.value.mean().item())
    assert {label.get_text() for label in panel.get_yticklabels()} - set(found.metadata["components"]) == {
        f"the other {found.components.shape[1] - 27}, together"
    }
    assert panel.get_xlabel().endswith(f"mean over images; all bars together are {found.value.mean():.2f}")
    of_one = found.plot("heads", image=1).axes[0].images[0].get_array()
    assert found.heads is not None
    assert of_one.tolist() == found.heads[1].tolist()
    tokens = found.plot("tokens").axes[0]
    assert tokens.get_yticklabels()[0].get_text() == "embed.patch"
    for array in ("sources", "neurons", "pool_neurons", "value", "baseline"):
        assert found.plot(array).axes
    live = direct_logit_attribution(model, images_of(model), PAIR, norms="integrated", steps=2)
    assert "all bars and the baseline together are" in live.plot(image=0).axes[0].get_xlabel()


def test_what_pictures_refuse() -> None:
    model = model_of("one_layer")
    found = direct_logit_attribution(model, images_of(model), PAIR)
    with pytest.raises(PrismaError, match="expected an image from 0 to 1; found 2"):
        found.plot(image=2)
    for array in ("time_heads", "layers"):
        with pytest.raises(PrismaError, match=f"has no array '{array}'"):
            found.plot(array)


def test_nothing_is_left_on_the_model() -> None:
    model = model_of("base").train()
    before = {name: p.clone() for name, p in model.state_dict().items()}
    direct_logit_attribution(model, images_of(model), PAIR)
    direct_logit_attribution(model, images_of(model), PAIR, norms="integrated")
    assert model.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())


BAD: dict[str, tuple[dict[str, object], str]] = {
    "softmax": ({"metric": Probability(0)}, "linear in the logits.*found Probability"),
    "rank": ({"metric": Rank(0)}, "linear in the logits.*found Rank"),
    "absolute": ({"metric": lambda logits: logits[:, 0].abs()}, "linear in the logits"),
    "shifted": ({"metric": lambda logits: logits[:, 0] + 1}, "linear in the logits"),
    "whole": ({"metric": lambda logits: logits}, "linear in the logits"),
    "class": ({"metric": Logit(5)}, "expected a class from 0 to 4; found 5"),
    "norms": ({"norms": "live"}, "expected norms to be one of frozen, integrated; found 'live'"),
    "batch": ({"batch": 0}, "expected batch to be at least 1; found 0"),
    "steps": ({"steps": 0}, "expected steps to be at least 1; found 0"),
    "baseline": ({"norms": "integrated"}, "found one image and no baseline"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_it_refuses(case: str) -> None:
    options, message = BAD[case]
    model = model_of("base")
    with pytest.raises(PrismaError, match=message):
        direct_logit_attribution(model, images_of(model, n=1), **{"metric": Logit(0), **options})  # type: ignore[arg-type]


def test_no_images() -> None:
    model = model_of("base")
    with pytest.raises(PrismaError, match="expected at least one image; found none"):
        direct_logit_attribution(model, images_of(model)[:0], Logit(0))
