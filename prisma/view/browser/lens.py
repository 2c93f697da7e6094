"""The logit lens as a viewer gets it: the likeliest classes of every token at every stage, and whole columns of a few.

With 1,000 classes, 197 tokens and 13 stages all probabilities are 2.6 million numbers, of which a visitor reads a few
hundred. So a page gets the logits of the whole image, the likeliest classes of each token at each stage, and every
probability of those classes that are drawn at first; the probabilities of another class are asked for. Where all of
them together are few, the page gets all.
"""

import torch
from torch import Tensor

from prisma.view.browser.payload import Array, fractions, numbers

TOP = 5  # classes of each token at each stage
DRAWN = 3  # classes of which every probability is there at first: the likeliest of the whole image
FULL = 2**18  # probabilities up to which all are there


def lens_arrays(readout: Tensor, tokens: Tensor | None) -> dict[str, Array]:
    """The arrays of a lens on one image.

    Args:
        readout: logits [stage, class] of the whole image.
        tokens: logits [stage, token, class] of each token alone.

    Returns:
        `readout` [stage, class], logits; `top.class` and `top.probability` [stage, token, k], the likeliest first; and
        `tokens` [stage, token, class], probabilities, or if they are more than `FULL`, `column.class` [n] and `columns`
        [n, stage, token], the probabilities of these classes.

    Raises:
        PrismaError: a number is not finite.
    """
    found = {"readout": numbers(readout)}
    if tokens is None:
        return found
    probability = tokens.softmax(-1)
    top = probability.topk(min(TOP, probability.shape[-1]), dim=-1)
    found |= {"top.class": numbers(top.indices), "top.probability": fractions(top.values)}
    if probability.numel() <= FULL:
        return {**found, "tokens": fractions(probability)}
    classes = readout[-1].topk(min(DRAWN, readout.shape[-1])).indices
    columns = torch.stack([probability[..., c] for c in classes.tolist()])
    return {**found, "column.class": numbers(classes), "columns": fractions(columns)}


def stage_names(layers: int) -> list[str]:
    """A name for each stage of a lens."""
    return ["after the embedding", *(f"after layer {layer}" for layer in range(layers))]
