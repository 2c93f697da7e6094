"""ViTs whose circuits are known because they were written by hand: attention-only, without norms, in float64.

An image is a row of patches of one pixel, whose channels are a one-hot glyph. The stream has subspaces for a patch's
own glyph, for the glyph before it, for places, for what is asked and for the answer; the class token asks.
"""

import torch
from torch import Tensor

from prisma import ViT, ViTConfig
from prisma.attention import Attention
from tests.variants import default_dtype

GLYPHS, PATCHES, HEADS = 4, 5, 3
OWN, BEFORE, ASKED, ANSWER = (slice(i * GLYPHS, (i + 1) * GLYPHS) for i in range(4))
PLACE = slice(4 * GLYPHS, 4 * GLYPHS + PATCHES + 1)  # the class token has one too, the first
SHARP = 6.0  # scores of what a head looks for; others have 0


def images(*rows: list[int]) -> Tensor:
    """[image, glyph, 1, patch], one-hot."""
    return torch.eye(GLYPHS, dtype=torch.float64)[torch.tensor(rows)].mT[:, :, None]


def _bare(layers: int) -> ViT:
    config = ViTConfig(
        image_size=(1, PATCHES), patch_size=1, channels=GLYPHS, n_layers=layers, d_model=PLACE.stop, n_heads=HEADS,
        d_head=8, d_mlp=0, n_classes=GLYPHS, norm="none",
    )  # fmt: skip
    with default_dtype(torch.float64):
        model = ViT(config).eval()
    for parameter in model.parameters():
        parameter.data.zero_()
    with torch.no_grad():
        model.embed.patch.weight[OWN] = torch.eye(GLYPHS, dtype=torch.float64)
        assert model.embed.positions is not None
        places = torch.eye(PATCHES + 1, dtype=torch.float64)
        model.embed.prefix[:, PLACE], model.embed.positions[:, PLACE] = places[:1], places[1:]
        head = model.readout.head
        assert isinstance(head, torch.nn.Linear)
        head.weight[:, ANSWER] = torch.eye(GLYPHS, dtype=torch.float64)
    return model


def attention_of(model: ViT, layer: int) -> tuple[Attention, Tensor]:
    """The attention of a layer, and its projections [side, head, d_head, d_model], as a view."""
    attention = model.blocks[layer].get_submodule("attn")
    assert isinstance(attention, Attention)
    return attention, attention.qkv.weight.data.unflatten(0, attention.split)


def _copy(model: ViT, layer: int, head: int, source: slice, goal: slice) -> None:
    """What a head reads of `source` it writes to `goal`."""
    attention, sides = attention_of(model, layer)
    same = torch.eye(GLYPHS, dtype=torch.float64)
    sides[2, head, :GLYPHS, source] = same
    attention.out.weight.data.unflatten(1, attention.split[1:])[goal, head, :GLYPHS] = same


def copy_head(head: int = 1) -> ViT:
    """One head looks at all tokens alike and copies their glyphs to the answer."""
    model = _bare(1)
    _copy(model, 0, head, OWN, ANSWER)
    return model


def induction(before: int = 1, after: int = 2) -> ViT:
    """Which glyph stands after glyph 0? Head `before` of layer 0 tells each patch the glyph before it; head `after` of
    layer 1 has keys made of that, looks where it is 0, and copies the glyph there to the answer."""
    model = _bare(2)
    shift = torch.zeros(8, PLACE.stop, dtype=torch.float64)
    places = torch.arange(PATCHES + 1)
    _, sides = attention_of(model, 0)
    sides[1, before, : PATCHES + 1, PLACE] = torch.eye(PATCHES + 1, dtype=torch.float64)
    shift[(places - 1).clamp(min=0), PLACE.start + places] = SHARP * 8**0.5  # place i looks at place i - 1
    sides[0, before] = shift
    _copy(model, 0, before, OWN, BEFORE)
    _, sides = attention_of(model, 1)
    same = torch.eye(GLYPHS, dtype=torch.float64)
    sides[0, after, :GLYPHS, ASKED], sides[1, after, :GLYPHS, BEFORE] = SHARP * 8**0.5 * same, same
    model.embed.prefix.data[:, ASKED.start] = 1  # the class token asks for glyph 0
    _copy(model, 1, after, OWN, ANSWER)
    return model
