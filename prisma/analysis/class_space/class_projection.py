"""Class projection: what a vector of the residual stream, or what a branch writes to it, says about each class.

With E [class, d_model] and e the weight and bias of the head, and LN the readout's own norm, LN(x) = (x - mean) / sigma
* g + b, where sigma is the size of x:

    final    LN(x) E^T + e                             x is read as if it were the last residual stream
    frozen   (x C diag(g) / sigma(last)) E^T + ...     sigma of the last residual stream: what x adds to the logits
    folded   (x / sigma(x)) E'^T + ...                 E' = E diag(g) C, the directions that `class_embeddings` has
    none     x E^T + e                                 no norm, as weights are projected

C subtracts the mean (not in RMSNorm). The three dots are e + b E^T, which no x changes. `frozen` is linear: the
projections of all parts of the stream, without biases, add up to the logits without theirs. At the last stage the first
three agree.

Source: Vilas et al. 2310.18969, who use `final` for residual streams and for what a branch writes alone. A branch's
output has another size than the stream that it is added to, so its `final` projection is not what it adds to a logit.

Shapes: B image, T token, M d_model, C class.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prisma.analysis.attention.token_grid import TokenGrid
from prisma.analysis.border import expect_finite_run, guarded
from prisma.analysis.class_space.class_embeddings import class_embeddings, has_class_embeddings
from prisma.analysis.class_space.passes import recorded
from prisma.analysis.class_space.ranks import expect_classes
from prisma.analysis.class_space.token_kinds import TokenResult, kinds_metadata
from prisma.analysis.lens.logit_lens import pooled_alone, read_alone
from prisma.errors import PrismaError
from prisma.layers import epsilon
from prisma.numbers import exact
from prisma.plain import expect_plain, is_plain
from prisma.pretrained.zero_shot import PromptHead
from prisma.runs import sites_of_every_block
from prisma.sites import RESIDUAL, axes_of
from prisma.vit import ViT

NORMS = ("final", "frozen", "folded", "none")
_WHY = "the projection onto the classes"


class Projection:
    """Vectors [..., d_model] -> logits [..., class]: `project` with what does not depend on the vectors kept."""

    def __init__(self, model: ViT, norm: str = "final", bias: bool = True) -> None:
        expect_classes(model)
        if norm not in NORMS:
            raise PrismaError(f"expected norm to be {', '.join(NORMS)}; found {norm!r}")
        self.model, self.norm, self.bias = model, norm, bias
        if self.is_plain:
            return
        if not has_class_embeddings(model):
            raise PrismaError(
                f"expected a linear pooling for norm={norm!r} and bias={bias}; found pool={model.config.pool!r}"
            )
        expect_plain(model, ["readout", "readout.head", "readout.ln_final"], _WHY)
        self.plain_CM = class_embeddings(model, ln="none")
        self.folded_CM = class_embeddings(model, ln="folded") if norm in ("frozen", "folded") else self.plain_CM

    @property
    def is_plain(self) -> bool:
        """Whether it is the readout itself."""
        return self.norm == "final" and self.bias

    def __call__(self, x: Tensor, last: Tensor | None = None) -> Tensor:
        """Logits [..., class] of vectors [..., d_model], in float32 at least.

        Args:
            last: [..., d_model], the last residual stream at the same tokens, for `frozen`; by default x itself.
        """
        if self.norm == "final":
            return self._final(x)
        x = exact(x)
        if self.norm == "none":
            logits, offset = x @ self.plain_CM.to(x).mT, self._offset(None)
        else:
            divisor, length = self._divisors(x if last is None or self.norm == "folded" else exact(last))
            logits, offset = (x / divisor / length) @ self.folded_CM.to(x).mT, self._offset(length)
        return logits if offset is None else logits + offset

    def of_class(self, x_BTM: Tensor, labels_B: Tensor, last: Tensor | None = None) -> Tensor:
        """The logit [image, token] of one class of each image."""
        readout = self.model.readout
        head, direct = readout.head, all(map(is_plain, (readout, readout.head)))
        if self.norm != "final" or not self.bias or readout.attention_pool or not direct or type(head) is not nn.Linear:
            logits = self(x_BTM, last)
            return logits.gather(-1, labels_B[:, None, None].expand(*logits.shape[:2], 1))[..., 0]
        read_BTF = pooled_alone(readout, x_BTM.flatten(0, 1)).view(*x_BTM.shape[:2], -1)
        own = torch.einsum("btf,bf->bt", exact(read_BTF), exact(head.weight[labels_B]))
        return own if head.bias is None else own + exact(head.bias[labels_B])[:, None]

    def _final(self, x: Tensor) -> Tensor:
        logits_NC = self._final_of(x.reshape(-1, x.shape[-1]))
        return logits_NC.view(*x.shape[:-1], logits_NC.shape[-1])

    def _final_of(self, x_NM: Tensor) -> Tensor:
        if self.bias:
            return read_alone(self.model, x_NM[None])[0]
        head, read_NF = self.model.readout.head, pooled_alone(self.model.readout, x_NM)
        if isinstance(head, PromptHead):
            return exact(head(read_NF) - head.bias)
        return F.linear(exact(read_NF), exact(head.get_parameter("weight")))

    def _divisors(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the norm divides x by, and, where classes are prompts, the length of the image's embedding."""
        norm, head = self.model.readout.ln_final, self.model.readout.head
        divisor = x.new_ones(())
        if isinstance(norm, nn.LayerNorm | nn.RMSNorm):
            centred = x - x.mean(-1, keepdim=True) if isinstance(norm, nn.LayerNorm) else x
            divisor = (centred.square().mean(-1, keepdim=True) + epsilon(norm, x)).sqrt()
        if not isinstance(head, PromptHead):
            return divisor, x.new_ones(())
        pooled = pooled_alone(self.model.readout, x.flatten(0, -2).to(head.directions))
        return divisor, exact(head.projection(pooled)).norm(dim=-1).clamp_min(1e-12).view(*x.shape[:-1], 1).to(x)

    def _offset(self, length: Tensor | None) -> Tensor | None:
        """The logits [class] that no vector changes: the head's bias, and with a norm its bias times E."""
        if not self.bias:
            return None
        norm, head = self.model.readout.ln_final, self.model.readout.head
        shift = getattr(norm, "bias", None) if length is not None else None
        read = self.plain_CM.new_zeros(self.model.config.d_model) if shift is None else exact(shift)
        if not isinstance(head, PromptHead):
            offset = self.plain_CM @ read.to(self.plain_CM)
            return offset + exact(head.bias) if isinstance(head.bias, Tensor) else offset
        halves = read.repeat(head_width(head) // len(read)) if head_width(head) else read
        features = exact(head.projection(halves.to(head.directions)))
        along = features @ exact(head.directions).mT * head.scale
        return along / (1.0 if length is None else length) + head.bias


def head_width(head: PromptHead) -> int:
    """How many features the projection of prompts reads; 0 where there is none."""
    return head.projection.in_features if isinstance(head.projection, nn.Linear) else 0


@guarded
@torch.no_grad()
def project(model: ViT, x: Tensor, *, norm: str = "final", bias: bool = True, last: Tensor | None = None) -> Tensor:
    """What would the model answer from this vector alone? Logits [..., class] of vectors [..., d_model].

    A large number is a class towards which the vector points. With `norm="frozen"` it is what the vector adds to the
    logit, to first order.

    Args:
        x: vectors of the residual stream, or what a branch writes to it: [..., d_model].
        norm: "final", "frozen", "folded" or "none", as at the top of this file.
        bias: add what no vector changes: the head's bias and, in "frozen" and "folded", that of the norm. Without,
            these two are linear and project zero to zero; "final" applies the norm whole.
        last: for "frozen", the last residual stream at the same tokens [..., d_model], whose size divides x; by
            default x itself, as for the last stage.

    Raises:
        PrismaError: vectors of another width, another `norm`, a model without classes; or attention pooling with
            another norm than "final".

    Source: Vilas et al. 2310.18969.
    """
    projection, like = Projection(model, norm, bias), next(model.parameters())
    for name, given in {"x": x, "last": last}.items():
        if given is not None and not given.is_floating_point():
            raise PrismaError(f"expected {name} of floating-point numbers; found {given.dtype}")
        if given is not None and (not given.ndim or given.shape[-1] != model.config.d_model):
            raise PrismaError(f"expected {name} [..., {model.config.d_model}]; found {list(given.shape)}")
    if last is not None and last.shape != x.shape:
        raise PrismaError(f"expected last of the shape of x, {list(x.shape)}; found {list(last.shape)}")
    return projection(x.to(like), None if last is None else last.to(like))


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassProjection(TokenResult):
    """What each layer says about each class, at every token: logits, which are comparable within a layer.

    `top` names the classes that come first.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "logits": ("image", "layer", "token", "class"),
        "coverage": ("image", "patch"),
    }

    logits: Tensor

    def top(self, k: int = 5) -> Tensor:
        """The k classes with the largest logits [image, layer, token, k], the largest first.

        Raises:
            PrismaError: there are fewer classes.
        """
        if not 1 <= k <= self.logits.shape[-1]:
            raise PrismaError(f"expected k from 1 to {self.logits.shape[-1]}; found {k}")
        return self.logits.topk(k, dim=-1).indices


@guarded
@torch.no_grad()
def class_projection(
    model: ViT,
    images: Tensor,
    *,
    site: str = "resid_post",
    norm: str = "final",
    bias: bool = True,
    queries: str = "all",
    batch: int | None = None,
) -> ClassProjection:
    """What does the residual stream, or what attention or the MLP writes, say about each class, layer by layer?

    Args:
        images: [batch, channel, (frame,) height, width].
        site: a site of every block along the residual stream: resid_pre, resid_mid, resid_post, attn_out, mlp_out, ...
        norm, bias: as in `project`; with "frozen" each token is divided by the size of its own last residual stream.
        queries: which tokens are projected: "all", "class", "registers" or "patches". With 1000 classes, all tokens of
            an image in ViT-B/16 take 9 MB.
        batch: images in one pass; by default as many as have about 256 MiB of activations.

    Returns:
        `logits` [image, layer, token, class], in float32 at least.

    Raises:
        PrismaError: as `project`; the site is not along the residual stream; or the model has no such tokens.

    Source: Vilas et al. 2310.18969.
    """
    projection = Projection(model, norm, bias)
    sites = sites_of_every_block(model, site)
    if axes_of(sites[0]) != RESIDUAL:
        raise PrismaError(f"expected a site along the residual stream, such as resid_post; found {site!r}")
    last = f"blocks.{model.config.n_layers - 1}.resid_post"
    read = list(dict.fromkeys([*sites, *[last] * (norm == "frozen")]))
    chosen = TokenGrid.of(model.config).role(queries).nonzero()[:, 0].to(images.device)
    if not len(chosen):
        raise PrismaError(f"expected a model with {queries} tokens; found none")
    found = []
    for _, _, acts in recorded(model, images, read, batch):
        stream = acts[last][:, chosen] if norm == "frozen" else None
        found.append(torch.stack([expect_finite_run(projection(acts[s][:, chosen], stream)) for s in sites], dim=1))
    kinds = kinds_metadata(model.config)
    kinds["prefix"] = int((chosen < kinds["prefix"]).sum())
    kinds["class_token"] &= queries in ("all", "class")
    settings = {"site": site, "norm": norm, "bias": bias, "queries": queries}
    return ClassProjection(metadata={"analysis": "class_projection", **settings, **kinds}, logits=torch.cat(found))
