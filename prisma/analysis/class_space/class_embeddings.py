"""Class embeddings: the direction of the residual stream that stands for each class.

Sources: Vilas et al. 2310.18969 (class-embedding space).

Shapes: M d_model, C class.
"""

import torch
from torch import Tensor, nn

from prisma.analysis.border import guarded
from prisma.circuits import expect_ln, folded_in, stream_norms
from prisma.errors import PrismaError
from prisma.numbers import exact
from prisma.plain import expect_plain
from prisma.pretrained.zero_shot import PromptHead
from prisma.vit import ViT


@guarded
def class_embeddings(
    model: ViT, after: tuple[int, str] | None = None, *, ln: str = "folded", dtype: torch.dtype | None = None
) -> Tensor:
    """Which direction of the residual stream stands for each class? E [class, d_model].

    E times a vector of the stream is the logits that it adds, but for norms' divisors and biases: a large dot product
    with a row raises that class, a negative one lowers it. Where the readout uses two vectors (pool="class_mean",
    "distilled"), the direction is meant to be in both. In a model whose classes are prompts, these are the prompts'
    directions through the projection.

    Args:
        after: (layer, "time", "attn" or "mlp"), the branch whose output is projected: in a model with norm="post" it
            decides which norms come after; None for the final residual stream.
        ln: "folded" includes the norms between there and the readout, but for their divisors; "none" includes none.
        dtype: the precision; by default float32 at least.

    Raises:
        PrismaError: the model has no classes, or attention pooling, which is not linear, or `ln` has another value.
    """
    expect_ln(ln)
    head, c = model.readout.head, model.config
    if not has_class_embeddings(model):
        raise PrismaError(
            "class embeddings need a model with classes and a linear pooling; "
            f"found pool={c.pool!r} and n_classes={c.n_classes}"
        )
    head_parts = ["readout.head", *["readout.head.projection"] * isinstance(head, PromptHead)]
    expect_plain(model, ["readout", *head_parts, "readout.ln_final"], "which direction stands for a class")
    embedding = _of_prompts(head) if isinstance(head, PromptHead) else head.get_parameter("weight")
    reads_MC = exact(embedding).to(dtype).unflatten(1, (-1, c.d_model)).sum(1).mT
    if ln == "folded":
        on_stream = [] if after is None else list(stream_norms(model, *after))
        for norm in (model.readout.ln_final, *reversed(on_stream)):
            reads_MC = folded_in(norm, reads_MC)
    return reads_MC.mT


def has_class_embeddings(model: ViT) -> bool:
    """Whether logits are a matrix times the tokens, but for norms, so that `class_embeddings` exist."""
    return model.config.n_classes > 0 and model.config.pool != "attention"


def _of_prompts(head: PromptHead) -> Tensor:
    """[prompt, pooled]. Dividing by the length of the image's embedding is left out, as norms' divisors are."""
    projection, directions = head.projection, exact(head.directions)
    reads = directions @ exact(projection.weight) if isinstance(projection, nn.Linear) else directions
    return reads * head.scale
