"""Class similarity change: which blocks, and which of their branches, raise the logit of the image's class?

With P(x) the logit of the image's class at a token when x is projected, X the stream before the block, Y the stream
between its branches, Z the stream after it, A and M what attention and the MLP write, the share of tokens with

    block             P(Z) > P(X)
    attn_added        P(Y) > P(X)      what attention adds raises the class
    mlp_added         P(Z) > P(Y)      what the MLP adds raises it
    attn_alone        P(A) > P(X)      what attention writes, read alone, against its input
    mlp_alone         P(M) > P(X)      what the MLP writes against the input of the *block*, as published
    mlp_alone_own     P(M) > P(Y)      against the MLP's own input (X in a model whose branches are parallel)

In divided attention, attention over time comes before; what attention is compared with is the stream after it, which it
reads, in the place of X. A comparison of two equal logits counts 1/2. The three of branches read alone compare vectors
of different sizes, each normed by its own: they say how clearly the class is in what the branch writes, not how much
the branch adds.

Source: Vilas et al. 2310.18969 (block, attn_alone, mlp_alone).

Shapes: B image, S stage (0 is the embedding), L layer, T token.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from prisma.analysis.border import expect_finite_run, guarded
from prisma.analysis.class_space.causes import effects_by_layer
from prisma.analysis.class_space.class_projection import Projection
from prisma.analysis.class_space.passes import Pass, read_all, stage_sites, stream_numbers
from prisma.analysis.class_space.ranks import expect_labels
from prisma.analysis.class_space.token_kinds import TokenResult, coverage_of, kinds_metadata
from prisma.analysis.result import Effect
from prisma.analysis.statistics import mean_interval
from prisma.errors import PrismaError
from prisma.view.figures.charts import draw_stages
from prisma.vit import ViT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RATES = ("block", "attn_added", "mlp_added", "attn_alone", "mlp_alone", "mlp_alone_own")


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassSimilarityChange(TokenResult):
    """Whether each block, and each of its branches, raises the logit of the image's class at a token.

    1/2 is a coin flip: well above, the branch builds the class; well below, it takes it away. `of` averages over a kind
    of token. The fields are the logits that are compared.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **dict.fromkeys(RATES, ("image", "layer", "token")),
        "stream": ("image", "stage", "token"),
        **dict.fromkeys(("middle", "attn", "mlp", "time"), ("image", "layer", "token")),
        "coverage": ("image", "patch"),
    }

    stream: Tensor  # P of the stream before the first block, and after each
    middle: Tensor  # of the stream between the branches
    attn: Tensor  # of what attention writes
    mlp: Tensor | None = None  # of what the MLP writes; None in a model without
    time: Tensor | None = None  # of the stream after attention over time; None in a model without

    @property
    def block(self) -> Tensor:
        """The block against its input."""
        return _larger(self.stream[:, 1:], self.stream[:, :-1])

    @property
    def attn_added(self) -> Tensor:
        """The stream after attention against the stream before."""
        return _larger(self.middle, self._attention_reads)

    @property
    def mlp_added(self) -> Tensor | None:
        """The stream after the MLP against the stream before it; None in a model without."""
        return None if self.mlp is None else _larger(self.stream[:, 1:], self.middle)

    @property
    def attn_alone(self) -> Tensor:
        """What attention writes, read alone, against its input."""
        return _larger(self.attn, self._attention_reads)

    @property
    def _attention_reads(self) -> Tensor:
        return self.stream[:, :-1] if self.time is None else self.time

    @property
    def mlp_alone(self) -> Tensor | None:
        """What the MLP writes, read alone, against the input of the block."""
        return None if self.mlp is None else _larger(self.mlp, self.stream[:, :-1])

    @property
    def mlp_alone_own(self) -> Tensor | None:
        """What the MLP writes, read alone, against its own input."""
        reads = self.stream[:, :-1] if self.metadata.get("parallel") else self.middle
        return None if self.mlp is None else _larger(self.mlp, reads)

    def of(self, kind: str, rate: str = "block") -> Tensor:
        """[image, layer]: the share of tokens of one kind; NaN for an image without them.

        Raises:
            PrismaError: no such kind here, or no such rate.
        """
        if rate not in RATES or rate not in self.axes:
            raise PrismaError(f"expected one of {', '.join(r for r in RATES if r in self.axes)}; found {rate!r}")
        found = self.by_kind(getattr(self, rate))
        if kind not in found:
            raise PrismaError(f"expected a kind of token that is here, {', '.join(found)}; found {kind!r}")
        return found[kind]

    def interval(self, kind: str = "patches", rate: str = "block", level: float = 0.95) -> Tensor:
        """Bootstrap interval over images [2, layer] of the mean over images."""
        return mean_interval(self.of(kind, rate), level=level)

    def plot(self, array: str | None = None, *, kind: str = "patches", cause: Effect | None = None) -> "Figure":
        """Rates by layer, means over images and over the tokens of one kind; or one of them. 1/2 is a coin flip.

        Args:
            cause: as in `ClassIdentifiability.plot`.
        """
        if array is not None and array not in self.axes:
            return super().plot(array)  # whose error lists the arrays
        if array is not None and array not in RATES:
            return draw_stages({array: self.by_kind(self.arrays[array])[kind]}, title=f"logit of the class: {array}")
        lines = {rate: self.of(kind, rate) for rate in RATES if rate in self.axes and array in (None, rate)}
        title, beside = f"class similarity change: {kind}", effects_by_layer(cause)
        return draw_stages(lines, level=0.5, title=title, axis="layer", beside=beside)


def _larger(x: Tensor, y: Tensor) -> Tensor:
    return (x > y).float() + (x == y).float() / 2


@guarded
@torch.no_grad()
def class_similarity_change(
    model: ViT,
    images: Tensor,
    labels: Tensor,
    *,
    masks: Tensor | None = None,
    norm: str = "final",
    bias: bool = True,
    batch: int | None = None,
) -> ClassSimilarityChange:
    """Which blocks, and which of their branches, raise the logit of the image's class?

    Each rate is a share of tokens: 1/2 is a coin flip, near 1 a branch that raises the class nearly everywhere.
    `attn_added` and `mlp_added` are about what is added to the stream; those called `alone` read a branch by itself.

    Args:
        images: [batch, channel, (frame,) height, width].
        labels: [batch], whole numbers.
        masks: as in `class_identifiability`, for tokens of the kinds object and context.
        norm, bias: how a vector is projected, as in `class_space.project`. With "frozen", what a branch writes is
            divided by the size of the token's last stream.
        batch: images in one pass; by default as many as have about 256 MiB of activations.

    Returns:
        `block`, `attn_added`, `mlp_added`, `attn_alone`, `mlp_alone`, `mlp_alone_own` [image, layer, token], 0, 1/2 or
        1; and the logits that they compare.

    Raises:
        PrismaError: as `class_identifiability`; or the model has no layers.

    Source: Vilas et al. 2310.18969.
    """
    reader = ChangeReader(model, images, labels, masks=masks, norm=norm, bias=bias)
    read_all(model, images, [reader], batch)
    return reader.result()


class ChangeReader:
    """The logit of the image's class in the streams and in what the branches write, from one pass after another."""

    def __init__(
        self,
        model: ViT,
        images: Tensor,
        labels: Tensor,
        *,
        masks: Tensor | None = None,
        norm: str = "final",
        bias: bool = True,
    ) -> None:
        labels, c = expect_labels(model, images, labels), model.config
        if not c.n_layers:
            raise PrismaError("expected a model with layers; found n_layers=0")
        self.config, self.labels, self.projection = c, labels, Projection(model, norm, bias)
        self.coverage = None if masks is None else coverage_of(c, images, masks)
        self.names = {"stream": stage_sites(model)}
        branches = {"middle": "resid_mid", "attn": "attn_out", **({"mlp": "mlp_out"} if c.d_mlp else {})}
        branches |= {"time": "resid_time"} if c.attention == "divided" else {}
        for name, site in branches.items():
            self.names[name] = [f"blocks.{layer}.{site}" for layer in range(c.n_layers)]
        self.sites = stream_numbers(model, [site for sites in self.names.values() for site in sites])
        self.found: dict[str, list[Tensor]] = {name: [] for name in self.names}

    def add(self, one: Pass) -> None:
        last = one.acts[self.names["stream"][-1]] if self.projection.norm == "frozen" else None
        for name, sites in self.names.items():
            own = [self.projection.of_class(one.acts[site], self.labels[one.rows], last) for site in sites]
            self.found[name].append(expect_finite_run(torch.stack(own, dim=1)))

    def result(self) -> ClassSimilarityChange:
        settings = {"norm": self.projection.norm, "bias": self.projection.bias, **kinds_metadata(self.config)}
        arrays = {name: torch.cat(parts) for name, parts in self.found.items()}
        metadata = {"analysis": "class_similarity_change", **settings, "parallel": self.config.parallel}
        return ClassSimilarityChange(metadata=metadata, coverage=self.coverage, **arrays)
