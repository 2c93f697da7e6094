"""Which attentions a model has, and the positions of the tokens that each of them reads.

Three attentions: `attn` in every block; `time`, the attention over time that comes before it in divided attention; and
`pool`, attention pooling, whose one query is a learned vector and not a token.

Shapes: Q query, K key, T token (prefix first, then patches in raster order), P patch.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from prisma.batching import inputs_per_pass
from prisma.config import ViTConfig
from prisma.errors import PrismaError
from prisma.inventory import site_names
from prisma.vit import ViT

ATTENTIONS = ("attn", "time", "pool")


@dataclass(frozen=True)
class TokenGrid:
    """Class token, registers, then patches in raster order of (time, row, column)."""

    class_token: bool
    registers: int
    grid: tuple[int, int, int]  # patches along (time, height, width)

    @classmethod
    def of(cls, config: ViTConfig, attention: str = "attn") -> "TokenGrid":
        """The tokens that an attention reads: `time` reads patches alone, and so does `pool` unless `pool_prefix`."""
        if attention == "time" or (attention == "pool" and not config.pool_prefix):
            return cls(False, 0, config.grid)
        return cls(config.class_token, config.registers, config.grid)

    @property
    def n_prefix(self) -> int:
        """How many tokens come before the patches: the class token and registers."""
        return int(self.class_token) + self.registers

    @property
    def n_patches(self) -> int:
        """How many patches there are, over all times."""
        t, h, w = self.grid
        return t * h * w

    @property
    def n_tokens(self) -> int:
        """Prefix tokens and patches."""
        return self.n_prefix + self.n_patches

    def role(self, name: str) -> Tensor:
        """[token], boolean: which tokens are the `class` token, `registers`, `patches`, or `all`.

        Raises:
            PrismaError: no such role.
        """
        token_T, first = torch.arange(self.n_tokens), int(self.class_token)
        roles = {
            "all": token_T >= 0,
            "class": token_T < first,
            "registers": (token_T >= first) & (token_T < self.n_prefix),
            "patches": token_T >= self.n_prefix,
        }
        if name not in roles:
            raise PrismaError(f"expected a role of tokens, {', '.join(roles)}; found {name!r}")
        return roles[name]

    def places(self) -> tuple[Tensor, Tensor, Tensor]:
        """(time, row, column) of each token, three of [token]; -1 for prefix tokens."""
        axes = torch.meshgrid(*map(torch.arange, self.grid), indexing="ij")
        time_T, row_T, column_T = (F.pad(axis.flatten(), (self.n_prefix, 0), value=-1) for axis in axes)
        return time_T, row_T, column_T


def attention_scopes(config: ViTConfig, attention: str = "attn") -> list[str]:
    """The site prefixes of one kind of attention: `blocks.0.attn`, ... or `blocks.0.time`, ... or `pool`.

    Raises:
        PrismaError: this model has no such attention.
    """
    kinds: dict[str, list[str]] = {name: [] for name in ATTENTIONS}
    for site in site_names(config):
        if site.endswith(".pattern"):
            scope = site.removesuffix(".pattern")
            kinds[scope.split(".")[-1]].append(scope)
    if not kinds.get(attention):
        there = ", ".join(name for name, scopes in kinds.items() if scopes) or "none"
        raise PrismaError(f"expected an attention of this model ({there}); found {attention!r}")
    return kinds[attention]


def uniform_attention(config: ViTConfig, attention: str = "attn") -> Tensor:
    """The pattern [query, key] of a head whose scores are all equal: every key that it may attend to gets the same."""
    tokens = TokenGrid.of(config, attention)
    if attention == "pool":
        return torch.full((1, tokens.n_tokens), 1 / tokens.n_tokens, dtype=torch.float64)
    time_T, row_T, column_T = tokens.places()
    allowed_QK = torch.ones(tokens.n_tokens, tokens.n_tokens, dtype=torch.bool)
    if attention == "time":
        allowed_QK = (row_T[:, None] == row_T) & (column_T[:, None] == column_T)
    elif config.attention == "divided":
        allowed_QK = (time_T[:, None] == time_T) | tokens.role("class")
    uniform_QK = allowed_QK / allowed_QK.sum(-1, keepdim=True, dtype=torch.float64)
    if (
        attention == "attn" and config.attention == "divided"
    ):  # the class token is in every frame, and its outputs are averaged
        uniform_QK[0] = uniform_QK[1:].mean(0)
    return uniform_QK


def image_passes(model: ViT, images: Tensor, batch: int | None, *, copies: int = 1) -> Iterator[Tensor]:
    """The images in passes of `batch`; by default as many images in one pass as have patterns of about 256 MiB.

    Args:
        images: [image, ...], or their indices [image].
        copies: how many times the memory of all patterns, in float32, one image needs.

    Raises:
        PrismaError: there are no images, or `batch` is less than 1.
    """
    if not len(images):
        raise PrismaError("expected at least one image; found none")
    config = model.config
    patterns = max(config.n_layers, 1) * config.n_heads * config.n_tokens**2
    yield from images.split(inputs_per_pass(model, batch, memory=4 * patterns * copies))
