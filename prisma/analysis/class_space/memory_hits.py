"""Which memories of a layer are active at a token, and whether they belong to the image's class: the arrays of images.

Shapes: B image, T token, N memory, K active memory, C class.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from prisma.analysis.class_space.passes import Pass, stream_numbers
from prisma.config import ViTConfig
from prisma.metrics import above_and_tied, top_share
from prisma.numbers import exact
from prisma.vit import ViT

SITES: Mapping[str, str] = {"mlp": "mlp.post", "attn": "attn.z"}
"""Kind of layer -> the site of its coefficients."""
PARTS = ("stream", "attention", "mlp", "none")
"""What a block's output may have its first class from."""


@dataclass(frozen=True)
class OwnMemories:
    """Which memories of a layer are a class's own, and which classes a memory's: 1 or 0, [memory, class]."""

    of_class: Tensor  # the memory is among those that raise the class most
    of_memory: Tensor  # the class is among those that the memory raises most
    first_class: Tensor  # [memory]: the class that it raises most

    @classmethod
    def of(cls, value_CN: Tensor, top: int) -> "OwnMemories":
        return cls(_largest(value_CN, top, dim=1).mT, _largest(value_CN, top, dim=0).mT, value_CN.argmax(0))

    def hits(self, active_BTK: Tensor, is_active_BTK: Tensor, label_B: Tensor) -> dict[str, Tensor]:
        """Whether an active memory fits the image's class, in both directions, and the share of other classes."""
        found: dict[str, Tensor] = {}
        nobody = len(self.of_class)  # a row of zeros after all memories, which is several times faster than weights
        rows_BTK = torch.where(is_active_BTK, active_BTK, nobody)
        for name, own_NC in {"memory_of_class": self.of_class, "class_of_memory": self.of_memory}.items():
            counts_BTC = F.embedding_bag(
                rows_BTK.flatten(0, 1), F.pad(own_NC.to(rows_BTK.device), (0, 0, 0, 1)), mode="sum"
            )
            any_BTC = (counts_BTC > 0).float().view(*active_BTK.shape[:2], -1)
            hit_BT = any_BTC.gather(-1, label_B[:, None, None].expand(*any_BTC.shape[:2], 1))[..., 0]
            found |= {name: hit_BT, f"{name}_by_chance": (any_BTC.sum(-1) - hit_BT) / max(any_BTC.shape[-1] - 1, 1)}
        return found


def _largest(values: Tensor, k: int, dim: int) -> Tensor:
    chosen = values.topk(min(k, values.shape[dim]), dim=dim).indices
    return torch.zeros_like(values, dtype=torch.float32).scatter(dim, chosen, 1)


class HitReader:
    """The arrays of images, with a row for each layer of `own`, from one pass after another."""

    def __init__(
        self,
        model: ViT,
        labels: Tensor,
        site: str,
        own: Mapping[int, OwnMemories],
        top: int,
        compat: str | None = None,
    ) -> None:
        c = model.config
        self.labels, self.own, self.top, self.compat = labels, own, top, compat
        self.parts = {layer: parts_of_block(c, layer) for layer in own}
        self.coefficients, self.written = SITES[site], "mlp" if site == "mlp" else "attention"
        if compat and site == "mlp":
            self.coefficients = "mlp.pre"
        width = c.d_mlp if site == "mlp" else c.n_heads * c.d_head
        self.sites = stream_numbers(model, [site for parts in self.parts.values() for site in parts.values()])
        self.sites |= {f"blocks.{i}.{self.coefficients}": c.n_tokens * width for i in own}
        self.found: list[dict[str, Tensor]] = []

    def add(self, one: Pass) -> None:
        of_layers, label_B = [], self.labels[one.rows]
        for layer, memories in self.own.items():
            coefficient_BTN = exact(one.acts[f"blocks.{layer}.{self.coefficients}"]).flatten(2)
            size_BTK, active_BTK = coefficient_BTN.topk(min(self.top, coefficient_BTN.shape[-1]), dim=-1)
            is_active_BTK = size_BTK != 0  # what has no coefficient writes nothing, as most neurons after a ReLU
            first = {part: one.first(site) for part, site in self.parts[layer].items()}
            written_BT = first[self.written]
            alike = memories.first_class.to(written_BT.device)[active_BTK] == written_BT[..., None]
            hits = memories.hits(active_BTK, is_active_BTK, label_B)
            shares = published_composition(first) if self.compat else composition(first)
            of_layers.append(hits | {"composed": (alike & is_active_BTK).any(-1).float(), "composition": shares})
        stacked = {name: torch.stack([x[name] for x in of_layers], dim=1) for name in of_layers[0]}
        self.found.append(stacked | {"correct": top_share(*above_and_tied(one.logits, label_B)).float()})

    def arrays(self) -> dict[str, Tensor]:
        return {name: torch.cat([x[name] for x in self.found]) for name in self.found[0]}


def parts_of_block(config: ViTConfig, layer: int) -> dict[str, str]:
    """Part of a block -> the site that is projected; and the block's output.

    The stream is the one that attention reads: in divided attention, it includes what attention over time adds. Else it
    is the output of the block before, which is projected once for both.
    """
    stream = f"blocks.{layer - 1}.resid_post" if layer else "blocks.0.resid_pre"
    if config.attention == "divided":
        stream = f"blocks.{layer}.resid_time"
    parts = {"attention": "attn_out", "output": "resid_post"} | ({"mlp": "mlp_out"} if config.d_mlp else {})
    return {"stream": stream} | {part: f"blocks.{layer}.{site}" for part, site in parts.items()}


def composition(first: Mapping[str, Tensor]) -> Tensor:
    """Shares of the parts [image, token, part] in the first class of the block's output; they sum to one.

    Args:
        first: part -> the first class [image, token] of its projection, and that of the `output`.
    """
    agree = _agree(first)
    count = agree.sum(-1, keepdim=True)
    return torch.cat([agree / count.clamp(min=1), count == 0], dim=-1)


def published_composition(first: Mapping[str, Tensor]) -> Tensor:
    """As published: parts overlap, and "none" looks at the stream and attention alone, so the sum can exceed one."""
    agree = _agree(first)
    return torch.cat([agree, ~agree[..., :2].any(-1, keepdim=True)], dim=-1).float()


def _agree(first: Mapping[str, Tensor]) -> Tensor:
    """[image, token, part], boolean: whether the part has the first class of the block's output."""
    output = first["output"]
    parts = [first[p] == output if p in first else torch.zeros_like(output, dtype=torch.bool) for p in PARTS[:-1]]
    return torch.stack(parts, dim=-1)
