"""RelP is exact patching in a linear model: the one whose norms, patterns and ratios are those of the target run."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from prisma import LogitDiff, PrismaError, ViT
from prisma.analysis.circuits.attribution_patching import attribution_patching
from prisma.analysis.circuits.edge_attribution import edge_attribution
from prisma.analysis.circuits.graph import Graph
from prisma.analysis.circuits.relevance_patching import RelevancePatching, relevance_patching
from prisma.runs import record
from tests.analysis.circuits.test_attribution_patching import linear_model
from tests.analysis.circuits.test_circuit_run import pairs_of
from tests.variants import images_of, model_of

METRIC = LogitDiff(0, 1)


class Held:
    """The run of a model of the base form, written out, in which patterns, ratios and deviations can be held."""

    def __init__(self, model: ViT, image: Tensor) -> None:
        self.model, self.w, self.c = model, model.state_dict(), model.config
        self.constants: list[Tensor] = []
        self.replaying = False
        self.run(model.embed(image), {})
        self.replaying = True

    def hold(self, value: Tensor) -> Tensor:
        if not self.replaying:
            self.constants.append(value.detach())
            return value
        self.at += 1
        return self.constants[self.at - 1]

    def norm(self, x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scale = self.hold((centred.square().mean(-1, keepdim=True) + self.c.norm_eps).sqrt())
        return centred / scale * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def run(self, x: Tensor, patches: dict[str, Tensor]) -> Tensor:
        """Logits; a patch is (head or None -> value) by the name of its site."""
        self.at = 0
        for layer in range(self.c.n_layers):
            block, read = f"blocks.{layer}", None
            x = patches.get(f"{block}.resid_pre", x)
            read = self.norm(x, f"{block}.ln1")
            qkv = F.linear(read, self.w[f"{block}.attn.qkv.weight"], self.w[f"{block}.attn.qkv.bias"])
            q, k, v = qkv.unflatten(-1, (3, self.c.n_heads, -1)).unbind(2)
            pattern = self.hold((torch.einsum("bqhd,bkhd->bhqk", q, k) * q.shape[-1] ** -0.5).softmax(-1))
            z = torch.einsum("bhqk,bkhd->bqhd", pattern, v)
            for head in range(self.c.n_heads):
                new = patches.get(f"{block}.attn.z{head}")
                z = (
                    z
                    if new is None
                    else torch.cat([z[:, :, :head], new[:, :, head : head + 1], z[:, :, head + 1 :]], 2)
                )
            x = x + F.linear(z.flatten(2), self.w[f"{block}.attn.out.weight"], self.w[f"{block}.attn.out.bias"])
            pre = F.linear(
                self.norm(x, f"{block}.ln2"), self.w[f"{block}.mlp.pre.weight"], self.w[f"{block}.mlp.pre.bias"]
            )
            post = pre * self.hold(F.gelu(pre) / pre)
            out = F.linear(post, self.w[f"{block}.mlp.out.weight"], self.w[f"{block}.mlp.out.bias"])
            x = x + patches.get(f"{block}.mlp_out", out)
        x = self.norm(x, "readout.ln_final")[:, 0]
        return F.linear(x, self.w["readout.head.weight"], self.w["readout.head.bias"])


@torch.no_grad()
def test_it_is_exact_patching_in_the_linear_model_of_the_target_run() -> None:
    model = model_of("base")
    clean, corrupt = pairs_of(model, 2)
    found = relevance_patching(model, clean, corrupt, METRIC)
    held = Held(model, clean)
    torch.testing.assert_close(METRIC(held.run(model.embed(clean), {})), METRIC(model(clean)))
    new = record(model, corrupt, ["*.resid_pre", "*.attn.z", "*.mlp_out"])[1]
    base = METRIC(model(clean))

    def effect(site: str, value: Tensor) -> Tensor:
        return METRIC(held.run(model.embed(clean), {site: value})) - base

    for layer in range(2):
        name = f"blocks.{layer}"
        torch.testing.assert_close(
            found.tokens[:, layer].sum(-1), effect(f"{name}.resid_pre", new[f"{name}.resid_pre"])
        )
        torch.testing.assert_close(
            found.mlp_tokens[:, layer].sum(-1), effect(f"{name}.mlp_out", new[f"{name}.mlp_out"])
        )
        for head in range(3):
            expected = effect(f"{name}.attn.z{head}", new[f"{name}.attn.z"])
            torch.testing.assert_close(found.heads[:, layer, head], expected)
    assert (found.effect - attribution_patching(model, clean, corrupt, METRIC).effect).abs().max() > 0.01


@pytest.mark.parametrize("rules", ["cp_lrp", "attn_lrp"])
@pytest.mark.parametrize(
    "variant", ["base", "sub_norms", "norm_post", "rms", "parallel", "divided", "pool_attention_gated"]
)
def test_edges_that_leave_a_sender_sum_to_the_sender(variant: str, rules: str) -> None:
    model = model_of(variant)
    clean, corrupt = pairs_of(model, 2)
    nodes = relevance_patching(model, clean, corrupt, METRIC, rules=rules)
    edges = edge_attribution(model, clean, corrupt, METRIC, rules=rules)
    of_sender, graph = edges.values.sum(2), Graph(model.config)
    torch.testing.assert_close(of_sender[:, 0], nodes.tokens[:, 0].sum(-1), rtol=1e-9, atol=1e-10)
    attn = torch.cat([of_sender[:, s.senders] for s in graph.stages if s.kind == "attn"], dim=1)
    torch.testing.assert_close(attn, nodes.heads.flatten(1), rtol=1e-9, atol=1e-10)
    assert edges.metadata["rules"] == rules and nodes.metadata["rules"] == rules
    torch.testing.assert_close(nodes.clean, METRIC(model(clean)))


def test_in_a_linear_model_all_rules_are_the_gradient() -> None:
    model = linear_model()
    clean, corrupt = pairs_of(model, 2)
    plain = attribution_patching(model, clean, corrupt, METRIC)
    found = relevance_patching(model, clean, corrupt, METRIC)
    torch.testing.assert_close(found.heads, plain.heads)
    torch.testing.assert_close(found.tokens, plain.tokens)


def test_an_mlp_that_is_taken_away_is_exact_where_its_gradient_is_not() -> None:
    """Without norms and biases f(x) / x x = f(x): all that comes from the embedding is relevance of the embedding."""
    model = model_of("norm_none")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "attn" in name or name.endswith("bias") or ("embed" in name and "patch" not in name):
                parameter.zero_()
        model.embed.prefix.normal_(generator=torch.Generator().manual_seed(0))
    target = images_of(model, 2)
    stream = record(model, target, "blocks.0.resid_pre")[1]["blocks.0.resid_pre"]
    with _embedded(model, target):  # the source's embedding is 0
        found = relevance_patching(model, target, torch.zeros_like(target), METRIC)
        plain = attribution_patching(model, target, torch.zeros_like(target), METRIC)
    whole = -METRIC(model(target))
    assert stream.abs().max() > 0.1
    torch.testing.assert_close(found.tokens[:, 0].sum(-1), whole)
    assert (plain.tokens[:, 0].sum(-1) - whole).abs().min() > 1e-3


@contextmanager
def _embedded(model: ViT, target: Tensor) -> Iterator[None]:
    embed = type(model).forward, model.embed.forward

    def zero_or_own(images: Tensor, *args: object, **kwargs: object) -> Tensor:
        found: Tensor = embed[1](images, *args, **kwargs)
        return found * (images.abs().flatten(1).sum(1) > 0).to(found)[:, None, None]

    with patch.object(type(model.embed), "forward", lambda self, *args, **kwargs: zero_or_own(*args, **kwargs)):
        yield


def test_chunks_files_and_bad_input(tmp_path: object) -> None:
    model = model_of("base")
    clean, corrupt = pairs_of(model, 3)
    answers = LogitDiff([0, 1, 2], [4, 3, 0])
    whole, chunks = (relevance_patching(model, clean, corrupt, answers, batch=n) for n in (None, 1))
    torch.testing.assert_close(whole.head_tokens, chunks.head_tokens)
    again = RelevancePatching.from_npz(whole.to_npz(f"{tmp_path}/relp.npz"))
    assert torch.equal(again.heads, whole.heads) and whole.plot().axes
    with pytest.raises(PrismaError, match="expected rules to be cp_lrp or attn_lrp; found 'gradient'"):
        relevance_patching(model, clean, corrupt, METRIC, rules="gradient")
    with pytest.raises(PrismaError, match="expected rules to be one of gradient, cp_lrp, attn_lrp; found 'lrp'"):
        edge_attribution(model, clean, corrupt, METRIC, rules="lrp")
