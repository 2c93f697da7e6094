"""The game that a map explains: the target of an image as a function of which of its patches are present.

What an absent patch is, is a choice, and the number depends on it:

    dropped    its token is left out of the sequence: no fill value, and the run is shorter
    baseline   its pixels are those of a baseline image, by default zeros, the mean colour of most transforms

How tokens are left out is in `prisma.analysis.fewer_tokens`. It needs no run of the embedding per coalition: a patch
has its own token there.

Shapes: B run, K coalition, P patch, T token, M d_model.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from prisma.analysis.attribution.questions import values_of_logits, values_of_pixels, values_of_stream
from prisma.analysis.fewer_tokens import only_keys, positions_in_attention, same_length, taken
from prisma.analysis.readings import Reading
from prisma.batching import block_memory, inputs_per_pass
from prisma.config import ViTConfig
from prisma.errors import PrismaError, quoted
from prisma.metrics import Metric
from prisma.plain import expect_plain
from prisma.sites import Tap
from prisma.vit import ViT, expect_pixels, patches_of

ABSENT = ("dropped", "baseline")


@dataclass(frozen=True, eq=False)
class Game:
    """Base: images, what replaces what is absent, and the target.

    Attributes:
        images, baseline: [image, channel, (frame,) height, width], of the same shape.
        target: what is explained.
        batch: runs in one pass.
    """

    model: nn.Module
    images: Tensor
    baseline: Tensor
    target: Metric | Reading
    batch: int | None = None

    def __post_init__(self) -> None:
        if self.batch is not None and self.batch < 1:
            raise PrismaError(f"expected batch to be at least 1; found {self.batch}")

    @property
    def n_prefix(self) -> int:
        """Tokens before the patches, which are always present."""
        raise NotImplementedError

    @property
    def n_patches(self) -> int:
        raise NotImplementedError

    @property
    def per_pass(self) -> int:
        """How many runs fit in one pass."""
        raise NotImplementedError

    def of_pixels(self, pixels: Tensor, rows: Tensor) -> Tensor:
        """The target [row] of images [row, ...], with its gradient; `rows` says which image each is a version of."""
        return values_of_pixels(self.model, self.target, pixels, rows, len(self.images))

    def by_token(self, of_pixels: Tensor) -> Tensor:
        """Sums over the pixels of each patch [row, token]; zero for the tokens before the patches."""
        raise NotImplementedError

    def of_runs(self, rows_K: Tensor, present_KP: Tensor) -> Tensor:
        """The target [run] of images, by their indices, of which only some patches are present (boolean)."""
        raise NotImplementedError

    def of_coalitions(self, image: int, present_KP: Tensor) -> Tensor:
        """The target [coalition] of one image of which only some patches are present."""
        return self.of_runs(torch.full((len(present_KP),), image, device=self.images.device), present_KP)

    @cached_property
    def whole(self) -> Tensor:
        """The target [image] of the images themselves."""
        return torch.cat([self._plain(self.images[some], some) for some in self.passes()])

    @cached_property
    def empty(self) -> Tensor:
        """The target [image] of the baseline, of which no pixel is the image's."""
        return torch.cat([self._plain(self.baseline[some], some) for some in self.passes()])

    def passes(self, copies: int = 1, rows: Tensor | None = None) -> Iterator[Tensor]:
        """Indices of images (all, or `rows`), in passes; an image takes `copies` times the memory of one run."""
        rows = torch.arange(len(self.images), device=self.images.device) if rows is None else rows
        yield from rows.split(self.batch or max(self.per_pass // copies, 1))

    @torch.no_grad()
    def _plain(self, pixels: Tensor, rows: Tensor) -> Tensor:
        return self.of_pixels(pixels, rows)


@dataclass(frozen=True, eq=False)
class TokenGame(Game):
    """The game of a vision transformer, whose players are its patch tokens."""

    absent: str = "baseline"

    def __post_init__(self) -> None:
        super().__post_init__()
        expect_pixels(self.config, next(self.model.parameters()).dtype, self.images)
        if self.absent == "dropped":
            tokens = self.target.tokens if isinstance(self.target, Reading) else ()
            if divided(self.config) or any(token >= self.n_prefix for token in tokens):
                why = "divided attention" if divided(self.config) else f"a target at token {tokens[0]}"
                raise PrismaError(f"expected a sequence from which patches can be left out; found {why}: {_ADVICE}")
            expect_plain(self.model, [""], "runs on some of the tokens")

    @property
    def config(self) -> ViTConfig:
        found: ViTConfig = self.vit.config
        return found

    @property
    def vit(self) -> ViT:
        assert isinstance(self.model, ViT)
        return self.model

    @property
    def n_prefix(self) -> int:
        return self.config.n_prefix

    @property
    def n_patches(self) -> int:
        return self.config.n_patches

    @property
    def per_pass(self) -> int:
        return inputs_per_pass(self.vit, self.batch)

    def by_token(self, of_pixels: Tensor) -> Tensor:
        sums_BP = patches_of(self.config, of_pixels.contiguous()).sum(-1)
        return torch.cat([sums_BP.new_zeros(len(sums_BP), self.n_prefix), sums_BP], dim=1)

    @torch.no_grad()
    def of_runs(self, rows_K: Tensor, present_KP: Tensor) -> Tensor:
        if self.absent == "dropped":
            return self._of_few(rows_K, present_KP)
        always_KT = present_KP.new_ones(len(present_KP), self.n_prefix)
        found = []
        pairs = zip(
            rows_K.split(self.per_pass), torch.cat([always_KT, present_KP], dim=1).split(self.per_pass), strict=True
        )
        for rows, some_KT in pairs:
            stream = torch.where(
                some_KT[..., None], self._embedded(self.images, rows), self._embedded(self.baseline, rows)
            )
            found.append(self._values(stream, rows))
        return torch.cat(found)

    def _embedded(self, images: Tensor, rows: Tensor) -> Tensor:
        """The embedding of these images [row, token, d_model]; one that is asked for often is computed once."""
        there, place = rows.unique(return_inverse=True)
        found: Tensor = self.vit.embed(images[there])[place]
        return found

    def _of_few(self, rows_K: Tensor, present_KP: Tensor) -> Tensor:
        """Runs on the present tokens alone; those of the same length share a pass."""
        if not can_be_empty(self.config) and not bool(present_KP.any(1).all()):
            raise PrismaError(
                f"expected a readout that works without any patch; found one that averages them: {_ADVICE}"
            )
        found = self.images.new_empty(len(present_KP), dtype=torch.promote_types(self.images.dtype, torch.float32))
        always_KT = present_KP.new_ones(len(present_KP), self.n_prefix)
        for runs, kept in same_length(torch.cat([always_KT, present_KP], dim=1), self._per_pass_of):
            stream = self._embedded(self.images, rows_K[runs])
            found[runs] = self._values(stream, rows_K[runs], kept).to(found)
        return found

    def _per_pass_of(self, tokens: int) -> int:
        share = max(tokens, self.n_prefix + 1) / self.config.n_tokens
        return self.batch or inputs_per_pass(self.vit, memory=max(int(block_memory(self.vit) * share), 1))

    def _values(self, x_BTM: Tensor, rows: Tensor, kept: Tensor | None = None) -> Tensor:
        if kept is None:
            return values_of_stream(self.vit, self.target, x_BTM, self.images, rows)
        if positions_in_attention(self.config):
            return masked_values(self.vit, self.target, x_BTM, kept, rows, len(self.images))
        return values_of_stream(self.vit, self.target, taken(x_BTM, kept), self.images, rows)


_ADVICE = "use absent='baseline'"


def divided(config: ViTConfig) -> bool:
    """Whether attention is divided into space and time, which needs the whole grid of patches."""
    return config.attention == "divided"


def can_be_empty(config: ViTConfig) -> bool:
    """Whether the readout works without any patch: it reads the class token, or averages prefix tokens too."""
    return config.pool in ("class", "distilled") or (config.pool_prefix and config.n_prefix > 0)


def absence_of(config: ViTConfig, absent: str | None, baseline: Tensor | None = None) -> str:
    """What an absent patch is. By default dropped, wherever every coalition can be run that way, or else the baseline.

    Raises:
        PrismaError: no such way; or a baseline that is given, and would not be used.
    """
    if absent is not None and absent not in ABSENT:
        raise PrismaError(f"expected absent to be {' or '.join(ABSENT)}; found {quoted(str(absent))}")
    if absent is None and baseline is None:
        return "dropped" if can_be_empty(config) and not divided(config) else "baseline"
    if absent == "dropped" and baseline is not None:
        raise PrismaError(f"expected no baseline where patches are dropped; found one: {_ADVICE}")
    return absent or "baseline"


def masked_values(
    model: ViT, target: Metric | Reading, x_BTM: Tensor, kept: Tensor, rows: Tensor, total: int
) -> Tensor:
    """The target [row] where no token attends to absent ones, and the readout does not see them.

    Args:
        x_BTM: the whole embedding of each run.
        kept: [row, kept token], indices of the tokens that are present.
        total: the number of all images.
    """
    if isinstance(target, Reading) and not target.tokens:
        raise PrismaError(
            f"expected a target that is no mean over tokens where keys are masked; found {target}: {_ADVICE}"
        )
    masks = only_keys(model.config, kept)
    tap = Tap(frozenset(target.reads) if isinstance(target, Reading) else (), masks)
    stream = model.encode(x_BTM, tap=tap)
    logits = model.readout(taken(stream, kept), tap)
    return target.value(tap.tensors) if isinstance(target, Reading) else values_of_logits(target, logits, rows, total)
