"""Per-head views of the weights, and the circuits they form (Elhage et al. 2021, A Mathematical Framework).

Row-vector convention: `q = x @ W_Q[head]`, `z @ W_O[head]` is what a head writes. Views share memory with the model.
"""

from torch import Tensor

from prisma.blocks import Attention
from prisma.errors import PrismaError
from prisma.vit import ViT


def weights(model: ViT, layer: int) -> dict[str, Tensor]:
    """`W_Q`, `W_K`, `W_V` [head, d_model, d_head], `W_O` [head, d_head, d_model] of one layer, as views."""
    attn = model.blocks[layer].get_submodule("attn")
    assert isinstance(attn, Attention)
    _, heads, d_head = attn.split
    q, k, v = attn.qkv.weight.unflatten(0, (3, heads, d_head)).unbind(0)
    out = attn.out.weight.unflatten(1, (heads, d_head))
    return {"W_Q": q.mT, "W_K": k.mT, "W_V": v.mT, "W_O": out.permute(1, 2, 0)}


def ov(model: ViT, layer: int) -> Tensor:
    """W_V W_O [head, d_model, d_model]: what a head writes to the query, given what it reads from the key.

    With layer scale, W_O is scaled by it, so that this is what the residual stream receives.
    """
    w, scale = weights(model, layer), model.blocks[layer].get_submodule("scale1")
    return scale(w["W_V"] @ w["W_O"])


def qk(model: ViT, layer: int) -> Tensor:
    """W_Q W_K^T [head, d_model, d_model]: scores = x_query QK x_key^T / sqrt(d_head) but for biases and rotation.

    Raises:
        PrismaError: the model has QK-norm, so that its scores are no bilinear form of the residual stream.
    """
    if model.config.qk_norm:
        raise PrismaError("a QK circuit needs qk_norm=False; this model normalises each head's q and k")
    w = weights(model, layer)
    return w["W_Q"] @ w["W_K"].mT
