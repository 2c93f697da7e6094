"""Logit lens: what the model would answer if it stopped after each layer.

With x_s the residual stream after s blocks, the lens is `readout(x_s)`: the model's own final norm (with the statistics
of x_s), pooling and head. At the last stage it is the logits.

The answers are classes of the model; for `loaded.zero_shot(prompts).model` the classes are prompts in any words, which
is the text-direction lens of a CLIP.

Source: nostalgebraist, Interpreting GPT: the logit lens (2020); for vision transformers Vilas et al. 2310.18969.

Shapes: S stage (0 is the embedding, s is after block s - 1), B batch, T token, M d_model, C class.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from prisma.analysis.border import expect_finite_run, guarded
from prisma.analysis.result import Result
from prisma.batching import inputs_per_pass
from prisma.errors import PrismaError
from prisma.numbers import exact
from prisma.plain import expect_plain, is_plain
from prisma.runs import check_pixels
from prisma.view.browser import View
from prisma.view.browser.notebook import lens_view
from prisma.view.figures.answers import draw_answers
from prisma.view.figures.charts import draw_stages
from prisma.view.figures.maps import chosen_images
from prisma.view.figures.plots import draw
from prisma.vit import Readout, ViT

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True, eq=False)
class LogitLens(Result):
    """What the model would answer after each stage: logits of its own readout, applied early.

    Stage 0 is the embedding, stage s is after block s - 1, and the last stage equals the logits. The first stage at
    which the final answer has the largest logit is where the answer has become readable; `divergence` falls to 0.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "readout": ("image", "stage", "class"),
        "tokens": ("image", "stage", "token", "class"),
        "divergence": ("image", "stage"),
    }

    readout: Tensor  # logits of the whole residual stream; the last stage equals the logits
    tokens: Tensor | None = None  # logits of a stream in which every token is a copy of this one

    @property
    def divergence(self) -> Tensor:
        """[image, stage]: KL(the model's answer || the answer at this stage), in nats; 0 is the same answer."""
        found = exact(self.readout).log_softmax(-1)
        last = found[:, -1:]
        return (last.exp() * (last - found)).sum(-1)

    def plot(
        self, array: str | None = None, *, images: Sequence[int] | None = None, classes: Sequence[str] = ()
    ) -> "Figure":
        """By default a table: the first class at each stage, a row for each image.

        Args:
            array: "readout"; "tokens" for the probability of the model's answer at each token alone; or "divergence",
                a line for the mean over all images.
            images: indices of the images to draw, by default the first six.
            classes: names of the classes, such as `task.labels` or the prompts.

        Raises:
            PrismaError: an array or image that does not exist, or more rows than can be read.
        """
        name, chosen = array or "readout", chosen_images(len(self.readout), images)
        title = f"{str(self.metadata['analysis']).replace('_', ' ')}: "
        if name == "readout":
            rows = [f"image {i}" for i in chosen]
            return draw_answers(self.readout[chosen], rows, classes=classes, title=title + "the first class")
        if name == "divergence":
            return draw_stages({"KL to the answer, nats": self.divergence}, title=title + "how far from the answer")
        if name not in self.axes or self.tokens is None:
            return super().plot(name)  # whose error lists the arrays
        answer_B = self.readout[chosen, -1].argmax(-1)
        p_BST = torch.stack([p[..., c] for p, c in zip(self.tokens[chosen].softmax(-1), answer_B, strict=True)])
        names = {"image": [f"image {i}" for i in chosen]}
        return draw(p_BST, ("image", "stage", "token"), title=title + "probability of the answer", names=names)

    def _view(self) -> View:
        if self.tokens is None:
            return super()._view()
        return lens_view(self.readout.detach().cpu(), self.tokens.detach().cpu(), self.metadata)


@guarded
@torch.no_grad()
def logit_lens(model: ViT, images: Tensor, *, tokens: bool = True, batch: int | None = None) -> LogitLens:
    """What would the model answer if it stopped after each layer?

    `readout` has the logits of the model's own readout at each stage: the class with the largest one is the answer so
    far, and the last stage is the model's answer. Early stages may be unreadable although the information is there, in
    other directions than the readout's: `tuned_lens` corrects for that.

    `tokens` reads each token alone: a stream in which every token is a copy of it goes through the readout, which means
    the same for every kind of pooling. With `pool="class"` the class token's row equals `readout`.

    Args:
        images: [batch, channel, (frame,) height, width].
        tokens: also read each token alone, which is a number for each image, stage, token and class.
        batch: images in one pass; by default as many as have about 256 MiB of activations.

    Returns:
        `readout` [image, stage, class] and `tokens` [image, stage, token, class], logits; `divergence` [image, stage],
        nats.

    Raises:
        PrismaError: the model has no classes, there are no images, or they do not fit the model.

    Source: nostalgebraist, Interpreting GPT: the logit lens (2020).
    """
    readout, alone = [], []
    for x_BTM in stages_of(model, images, batch):
        readout.append(model.readout(x_BTM))
        if tokens:
            alone.append(read_alone(model, x_BTM, batch))
    tokens_BSTC = torch.stack(alone, dim=1) if tokens else None
    return LogitLens(metadata={"analysis": "logit_lens"}, readout=torch.stack(readout, dim=1), tokens=tokens_BSTC)


def stages_of(model: ViT, images: Tensor, batch: int | None = None) -> Iterator[Tensor]:
    """The residual stream [batch, token, d_model] after the embedding and after each block: one stage at a time.

    Raises:
        PrismaError: the model has no classes, there are no images, they do not fit the model, or it has a hook of its
            own.
    """
    if not model.config.n_classes:
        raise PrismaError("a logit lens needs a model with classes; found n_classes=0")
    if not len(images):
        raise PrismaError("expected at least one image; found none")
    expect_plain(model, [""], "the readout at every stage")
    check_pixels(model, images)
    size = inputs_per_pass(model, batch)
    x_BTM = expect_finite_run(torch.cat([model.embed(some) for some in images.split(size)]))
    yield x_BTM
    for layer in range(model.config.n_layers):
        parts = [model.encode(some_BTM, start=layer, stop=layer + 1) for some_BTM in x_BTM.split(size)]
        x_BTM = expect_finite_run(torch.cat(parts))
        yield x_BTM


def read_alone(model: ViT, x_BTM: Tensor, batch: int | None = None) -> Tensor:
    """Logits [batch, token, class] of each token alone, in float32 at least: as if every token were a copy of it."""
    size = inputs_per_pass(model, batch) * x_BTM.shape[1]
    alone = [_read_each(model.readout, x_NM, model.config.n_prefix + 1) for x_NM in x_BTM.flatten(0, 1).split(size)]
    logits_NC = exact(torch.cat(alone))
    return logits_NC.view(*x_BTM.shape[:2], logits_NC.shape[-1])


def _read_each(readout: Readout, x_NM: Tensor, copies: int) -> Tensor:
    """Logits [vector, class]. A pooling that only takes, averages or joins tokens needs no copies of them.

    Args:
        copies: the fewest tokens that hold every prefix token and a patch.
    """
    if readout.attention_pool is not None or not is_plain(readout):
        size = max(len(x_NM) // copies, 1)
        return torch.cat([readout(some_NM[:, None].expand(-1, copies, -1)) for some_NM in x_NM.split(size)])
    return readout.head(pooled_alone(readout, x_NM))


def pooled_alone(readout: Readout, x_NM: Tensor) -> Tensor:
    """What the head reads [vector, features] where every token is a copy of one vector; not for attention pooling."""
    normed_NM = x_NM if readout.ln_final is None else readout.ln_final(x_NM[:, None])[:, 0]
    return torch.cat([normed_NM] * 2, dim=-1) if readout.pool in ("class_mean", "distilled") else normed_NM
