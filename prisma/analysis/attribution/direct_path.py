"""The direct path: from the parts of the residual stream to the logits, with nothing but norms in between.

The stream is a sum of parts: what embedding, heads and neurons write, and biases. When attention patterns and neurons'
activations are given, all that is left of the model are additions, fixed matrices and norms. A norm divides by the size
of its input. With that divisor frozen at its value for this image,

    LN(x) = (x - mean(x)) / sigma * w + b,    sigma = sqrt(var(x) + eps) a constant,

it is linear, and so is the path from every part to the logits:  logits = sum over parts of  part @ (its matrix).

`DirectPath` computes that path for every form of the model. It calls `part(name, value, tokens)` wherever a part is
added, so that an analysis can record the part, or return a changed one.

Source: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits (direct effects, frozen LayerNorm).

Shapes: B batch, T token, P patch, M d_model, N d_mlp, H head, D d_head, Q the one query of the pooling, K key, C class.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prisma.analysis.attribution.quadrature import gauss_legendre
from prisma.analysis.border import record
from prisma.config import ViTConfig
from prisma.layers import epsilon, gain
from prisma.plain import called_parts, expect_plain
from prisma.pretrained.zero_shot import PromptHead
from prisma.vit import ViT

EVERY = slice(None)
BEFORE = r".*\.(qkv|q_norm|k_norm|mlp\.pre|mlp\.pre_linear|attention_pool\.[qk])(\..*)?"
BEFORE_PRE = rf"{BEFORE}|blocks\.\d+\.(ln1|ln2|ln_time)(\..*)?"
"""Modules that compute what is recorded, and no part of the path; where a norm comes before each branch, those too."""


class Part(Protocol):
    """A function that is called with each part and returns the value to use.

    `tokens` are the tokens that the part is written to; None for a part after the pooling.
    """

    def __call__(self, name: str, value: Tensor, tokens: slice | None) -> Tensor: ...


def expect_direct(model: ViT) -> None:
    """Raise PrismaError unless all that the path is computed from is plain; what is recorded may come from anything."""
    before = BEFORE_PRE if model.config.norm == "pre" else BEFORE
    names = [name for name in called_parts(model) if not re.fullmatch(before, name)]
    expect_plain(model, names, "the direct path from the parts of the residual stream to the logits")


def sites_on_path(config: ViTConfig) -> list[str]:
    """The sites that must be recorded in a run, so that `DirectPath` can be computed."""
    of_block = ["attn.z"] + ["mlp.post"] * bool(config.d_mlp) + ["time.z"] * (config.attention == "divided")
    names = ["embed", *(f"blocks.{layer}.{site}" for layer in range(config.n_layers) for site in of_block)]
    if config.pool == "attention":
        names += ["pool.pattern"] + ["pool.mlp.post"] * bool(config.pooling_d_mlp)
    return names


@dataclass
class DirectPath:
    """Parts -> logits [batch, class].

    A part has the name of what produces it: a module (`blocks.0.attn`: z of all heads; `blocks.0.mlp`: its neurons;
    `embed.patch`: the patches without their bias) or a parameter (`embed.prefix`, `blocks.0.mlp.out.bias`, ...).
    A bias of q, k, v or of an MLP's input is included in the heads and neurons. The MLP of an attention pooling is a
    separate part, as the blocks' MLPs are; the patterns of the pooling are given.
    """

    model: ViT
    acts: Mapping[str, Tensor]  # at `sites_on_path`, in the precision to compute in
    part: Part
    frozen: bool = True  # the norms' divisors are constants to autograd

    def logits(self) -> Tensor:
        x_BTM = self._embed()
        for layer in range(self.model.config.n_layers):
            x_BTM = self._block(x_BTM, f"blocks.{layer}")
        return self._head(self._readout(x_BTM))

    def _embed(self) -> Tensor:
        c, n = self.model.config, self.model.config.n_prefix
        patches = slice(n, None)
        prefix_BTM, patches_BPM = self.acts["embed"].tensor_split([n], dim=1)
        last = "embed.ln_patch" if c.norm_patches else "embed.patch"
        if (bias := self._bias(last)) is not None:
            patches_BPM = patches_BPM - bias
        x_BTM = self._biased(last, self.part("embed.patch", patches_BPM, patches), patches)
        if (positions := self.model.embed.positions) is not None:
            x_BTM = x_BTM + self.part("embed.positions", positions.detach().to(x_BTM).expand_as(x_BTM), patches)
        if n:
            x_BTM = torch.cat([self.part("embed.prefix", prefix_BTM, slice(n)), x_BTM], dim=1)
        return self._norm("embed.ln_pre", x_BTM, EVERY)

    def _block(self, x_BTM: Tensor, name: str) -> Tensor:
        c = self.model.config
        if c.attention == "divided":
            time_BPM = self._heads(f"{name}.time", slice(c.n_prefix, None))
            x_BTM = x_BTM + F.pad(self._module(f"{name}.scale_time")(time_BPM), (0, 0, c.n_prefix, 0))
        x_BTM = self._add(x_BTM, self._heads(f"{name}.attn", EVERY), name, 1)
        if c.d_mlp:
            post_BTN = self.acts[f"{name}.mlp.post"]
            x_BTM = self._add(x_BTM, self._neurons(f"{name}.mlp", post_BTN, EVERY), name, 2)
        return x_BTM

    def _add(self, x_BTM: Tensor, out_BTM: Tensor, block: str, branch: int) -> Tensor:
        """The stream after a branch, with the norm on what the branch adds or on the stream."""
        norm, ln = self.model.config.norm, f"{block}.ln{branch}"
        out_BTM = self._norm(ln, out_BTM, EVERY) if norm == "res_post" else out_BTM
        x_BTM = x_BTM + self._module(f"{block}.scale{branch}")(out_BTM)
        return self._norm(ln, x_BTM, EVERY) if norm == "post" else x_BTM

    def _heads(self, name: str, tokens: slice) -> Tensor:
        z_BTHD = self.part(name, self.acts[f"{name}.z"], tokens)
        return self._linear(f"{name}.out", self._norm(f"{name}.ln", z_BTHD.flatten(2), tokens), tokens)

    def _neurons(self, name: str, post: Tensor, tokens: slice | None) -> Tensor:
        post = self._norm(f"{name}.ln", self.part(name, post, tokens), tokens)
        return self._linear(f"{name}.out", post, tokens)

    def _readout(self, x_BTM: Tensor) -> Tensor:
        if self.model.config.norm_pooled:
            return self._norm("readout.ln_final", self._pool(x_BTM), None)
        return self._pool(self._norm("readout.ln_final", x_BTM, EVERY))

    def _pool(self, x_BTM: Tensor) -> Tensor:
        c = self.model.config
        read_BTM = x_BTM[:, 0 if c.pool_prefix else c.n_prefix :]
        if c.pool == "attention":
            return self._attention_pool(read_BTM, "readout.attention_pool")
        if c.pool in ("class", "distilled"):
            return x_BTM[:, : 1 if c.pool == "class" else 2].flatten(1)
        mean_BM = read_BTM.mean(1)
        return mean_BM if c.pool == "mean" else torch.cat([x_BTM[:, 0], mean_BM], dim=-1)

    def _attention_pool(self, x_BKM: Tensor, name: str) -> Tensor:
        """The pattern is given. Its weights sum to one, so the bias of v is one part and not one for each token."""
        heads = self.model.config.pooling_heads
        v_BKHD = self._matrix(f"{name}.v", x_BKM).unflatten(-1, (heads, -1))
        z_BQHD = torch.einsum("bhqk,bkhd->bqhd", self.acts["pool.pattern"], v_BKHD)
        z_BM = self._biased(f"{name}.v", z_BQHD.flatten(1), None)
        pooled_BM = self._linear(f"{name}.out", z_BM, None)
        if "pool.mlp.post" not in self.acts:
            return pooled_BM
        return pooled_BM + self._neurons(f"{name}.mlp", self.acts["pool.mlp.post"][:, 0], None)

    def _head(self, pooled_BM: Tensor) -> Tensor:
        head = self.model.readout.head
        if not isinstance(head, PromptHead):
            return self._linear("readout.head", pooled_BM, None)
        features = self._linear("readout.head.projection", pooled_BM, None)
        length = features.norm(dim=-1, keepdim=True).clamp_min(1e-12)  # normalising divides too
        logits_BC = features / self._divisor("readout.head", length) @ head.directions.to(features).T * head.scale
        return logits_BC + self.part("readout.head.bias", torch.full_like(logits_BC, head.bias).detach(), None)

    def _norm(self, name: str, x: Tensor, tokens: slice | None) -> Tensor:
        """The norm, where the model has one."""
        norm = self._module(name)
        if not isinstance(norm, nn.LayerNorm | nn.RMSNorm):
            return x
        x = x - x.mean(-1, keepdim=True) if isinstance(norm, nn.LayerNorm) else x
        size = (x.square().mean(-1, keepdim=True) + epsilon(norm, x)).sqrt()
        return self._biased(name, x / self._divisor(name, size) * gain(norm).detach().to(x), tokens)

    def _divisor(self, name: str, size: Tensor) -> Tensor:
        """What a norm, or the head of prompts, divides by."""
        return size.detach() if self.frozen else size

    def _linear(self, name: str, x: Tensor, tokens: slice | None) -> Tensor:
        return self._biased(name, self._matrix(name, x), tokens)

    def _matrix(self, name: str, x: Tensor) -> Tensor:
        linear = self._module(name)
        return F.linear(x, linear.weight.detach().to(x)) if isinstance(linear, nn.Linear) else x

    def _biased(self, name: str, x: Tensor, tokens: slice | None) -> Tensor:
        """x plus the module's bias, which is a part, where it has one."""
        bias = self._bias(name)
        return x if bias is None else x + self.part(f"{name}.bias", bias.to(x).expand_as(x), tokens)

    def _bias(self, name: str) -> Tensor | None:
        bias = getattr(self._module(name), "bias", None)
        return None if bias is None else bias.detach()

    def _module(self, name: str) -> Any:
        """The module with this name, or None where this model has None."""
        return attrgetter(name)(self.model)


@dataclass(frozen=True)
class PartContributions:
    """What each part contributes to a direction in class space."""

    contribution: Mapping[str, Tensor]  # (part - baseline) * gradient, in the part's own shape
    gradient: Mapping[str, Tensor]  # of `direction . logits` by the part
    tokens: Mapping[str, slice | None]  # the tokens that the part is written to
    baseline: Tensor  # [batch]: the direction's value at the baseline; zero without one


class _Parts:
    """Keeps every part, moved to `fraction` of the way from the baseline to its value, as a tensor with a gradient."""

    def __init__(self, baseline: Mapping[str, Tensor] | None = None, fraction: float = 1.0) -> None:
        self.baseline, self.fraction = baseline, fraction
        self.leaves: dict[str, Tensor] = {}
        self.change: dict[str, Tensor] = {}
        self.tokens: dict[str, slice | None] = {}

    def __call__(self, name: str, value: Tensor, tokens: slice | None) -> Tensor:
        change = value if self.baseline is None else value - self.baseline[name]
        leaf = value if self.baseline is None else self.baseline[name] + self.fraction * change
        self.leaves[name], self.change[name], self.tokens[name] = leaf.detach().requires_grad_(), change, tokens
        return self.leaves[name]


@torch.no_grad()
def part_contributions(
    model: ViT, acts: Mapping[str, Tensor], direction_BC: Tensor, baseline: Mapping[str, Tensor] | None, steps: int
) -> PartContributions:
    """Contributions of all parts to `direction . logits`: with frozen norms, or from a baseline with live norms.

    Args:
        acts: as `record_path` returns them.
        baseline: part -> its value at the baseline, as `baseline_parts` returns them; None for frozen norms.
        steps: quadrature points between the baseline and this run; not used with frozen norms.
    """
    points = [(1.0, 1.0)] if baseline is None else gauss_legendre(steps)
    gradient: dict[str, Tensor] = {}
    for fraction, weight in points:
        with torch.enable_grad():
            parts = _Parts(baseline, fraction)
            value = (DirectPath(model, acts, parts, frozen=baseline is None).logits() * direction_BC).sum()
            found = torch.autograd.grad(value, list(parts.leaves.values()))
        for name, part in zip(parts.leaves, found, strict=True):
            gradient[name] = weight * part + gradient.get(name, 0.0)
    contribution = {name: change * gradient[name] for name, change in parts.change.items()}
    at_baseline = torch.zeros_like(direction_BC)
    if baseline is not None:
        at_baseline = DirectPath(model, acts, _Parts(baseline, 0.0)).logits()
    return PartContributions(contribution, gradient, parts.tokens, (at_baseline * direction_BC).sum(1))


@torch.no_grad()
def record_path(model: ViT, images: Tensor, sources: bool) -> tuple[Tensor, Mapping[str, Tensor]]:
    """Logits, and the activations that `DirectPath` needs, in float32 at least.

    Args:
        sources: also each head's pattern and v.
    """
    expect_direct(model)
    sites = sites_on_path(model.config)
    if sources:
        heads = [site.removesuffix(".z") for site in sites if site.endswith(".z")]
        sites += [f"{name}.{site}" for name in heads for site in ("pattern", "v")]
    logits_BC, acts = record(model, images, sites)
    exact = _exact(logits_BC.dtype)
    return logits_BC.to(exact), acts.map(lambda x: x.to(exact))


def path_memory(model: ViT, sources: bool) -> int:
    """Bytes that `record_path` keeps for one image."""
    c = model.config
    counts = {"attn": c.n_tokens, "time": c.n_patches} if c.attention == "divided" else {"attn": c.n_tokens}
    layer = c.n_tokens * c.d_mlp
    for tokens in counts.values():
        layer += tokens * c.n_heads * c.d_head * (1 + sources) + sources * c.n_heads * tokens**2
    numbers = c.n_tokens * c.d_model + c.n_layers * layer
    if c.pool == "attention":
        numbers += c.pooling_heads * (c.n_tokens if c.pool_prefix else c.n_patches) + c.pooling_d_mlp
    return numbers * _exact(model.embed.prefix.dtype).itemsize


def _exact(dtype: torch.dtype) -> torch.dtype:
    """float32, unless the model computes in float64."""
    return torch.promote_types(dtype, torch.float32)


@torch.no_grad()
def baseline_parts(model: ViT, images: Tensor, batch: int) -> dict[str, Tensor]:
    """The mean of every part over the images, [1, ...]."""
    total: dict[str, Tensor] = {}
    for some in images.split(batch):
        parts = _Parts()
        DirectPath(model, record_path(model, some, sources=False)[1], parts).logits()
        for name, part in parts.change.items():
            total[name] = part.sum(0, keepdim=True) + total.get(name, 0.0)
    return {name: part / len(images) for name, part in total.items()}
