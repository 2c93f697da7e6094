"""TextSpan: which few named directions span what a head writes to the output?

Each head adds a vector to the output, directly (`head_contributions`): C [image, feature], of which the mean over
images is taken away. Named directions R (texts of a CLIP, classes) are projected onto the span of C. Then step by step

    j = the direction whose projections C R_j vary most over images,
    C <- C - C R_j R_j^T / |R_j|^2,      R <- R - (R R_j) R_j^T / |R_j|^2,

so that each next direction explains what those before it left. The share of the variance of C that is gone after each
step says how much the names tell. Random directions explain some too, more of a head that writes few directions; their
share stands beside it.

`similarity` says what the names leave of the whole output: that of the model in which each head's contribution is its
mean, and what its first directions span; 0 steps is mean ablation of all heads' direct effects.

Source: Gandelsman et al. 2310.05916. They take the largest singular vectors of C for its span; here it is all of it.

Shapes: B image, L layer, H head, F feature, X text, S step.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from prisma.analysis.border import guarded
from prisma.analysis.class_space.passes import chosen_layers
from prisma.analysis.directions.head_contributions import head_contributions
from prisma.analysis.directions.subspaces import span_of
from prisma.analysis.directions.texts import Texts, answers, random_texts
from prisma.analysis.result import Result
from prisma.errors import PrismaError
from prisma.numbers import exact
from prisma.view.figures.plots import draw
from prisma.vit import ViT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMALL = 1e-6
"""A head whose contributions differ by a smaller share of their size does not vary."""
NONE = -1
"""In `chosen`: nothing was left to explain."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TextSpan(Result):
    """The directions that span each head's direct contributions, in order, and how much of the variance they explain.

    Read the names only of heads whose `explained` is far above `random_explained`. `metadata["texts"]` has the names,
    `metadata["layers"]` the numbers of the layers.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "explained": ("layer", "head", "step"),
        "random_explained": ("layer", "head", "step"),
        "chosen": ("layer", "head", "step"),
        "size": ("layer", "head"),
        "similarity": ("image", "kept"),
        "agreement": ("image", "kept"),
    }
    UNDEFINED: ClassVar[frozenset[str]] = frozenset({"explained", "random_explained"})  # of a head that never varies

    explained: Tensor  # share of the variance over images, after each step
    random_explained: Tensor  # the same with random directions, as many
    chosen: Tensor  # indices of texts; -1 where nothing was left
    size: Tensor  # root of the variance of the head's contribution, summed over features
    similarity: Tensor  # cosine of the output with the model's own, by the number of directions that are kept
    agreement: Tensor | None = None  # whether the answer is the model's own, where the texts are its classes

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        return {"layer": [f"layer {layer}" for layer in self.metadata["layers"]]}

    def heads(self, texts: Sequence[str] | None = None) -> dict[tuple[int, int], list[str]]:
        """(layer, head) -> the names of its directions in order, from the head that varies most down.

        Args:
            texts: other names, one for each direction.
        """
        names = self.metadata["texts"] if texts is None else texts
        count = self.size.shape[1]
        order = self.size.flatten().argsort(descending=True, stable=True).tolist()
        found = {}
        for place in order:
            layer, head = divmod(place, count)
            steps = [i for i in self.chosen[layer, head].tolist() if i != NONE]
            found[self.metadata["layers"][layer], head] = [names[i] for i in steps]
        return found

    def report(self, classes: Sequence[str] = ()) -> str:
        """A line for each of the ten heads that vary most."""
        own = classes if self.metadata["own"] and len(classes) == len(self.metadata["texts"]) else None
        lines = []
        for (layer, head), names in list(self.heads(own).items())[:10]:
            at = self.metadata["layers"].index(layer), head, -1
            shares = f"{self.explained[at]:.2f} explained, {self.random_explained[at]:.2f} by random directions"
            lines.append(f"layer {layer}, head {head}: {'; '.join(names)} ({shares})")
        return "\n".join(lines)

    def plot(self, array: str | None = None) -> "Figure":
        """What the last step explains of each head, and what random directions do; or a picture of another array."""
        if array is not None:
            return super().plot(array)
        both = torch.stack([self.explained[..., -1], self.random_explained[..., -1]])
        names = {"directions": ["named directions", "random directions"], **self.names}
        title = f"text_span: explained variance, {self.explained.shape[-1]} directions"
        return draw(both, ("directions", "layer", "head"), title=title, names=names)


@guarded
@torch.no_grad()
def text_span(
    model: ViT,
    images: Tensor,
    directions: Tensor | None = None,
    *,
    names: Sequence[str] | None = None,
    space: str | None = None,
    steps: int = 5,
    layers: Iterable[int] | None = None,
    controls: int = 3,
    seed: int = 0,
    batch: int | None = None,
) -> TextSpan:
    """Which few named directions span what each head writes to the output?

    `chosen` names them, first the one along which the head's contribution varies most; `explained` is the share of that
    variance after each step. The names tell a head's role where a few explain much more than random directions.

    Args:
        images: many, of every kind that the heads may tell apart; two at least.
        directions: [text, feature], such as `loaded.text(prompts)`; by default the prompts of a zero-shot CLIP or the
            classes of the model. They are taken at unit length.
        names: of the directions. space: "logits" (what the model returns) or "pooled" (what its head reads); by default
            the logits, and for the classes of the model the pooled features, in which they have directions.
        steps: how many directions of each head. layers: numbers of the layers; by default all. controls: sets of random
        directions, over which they are averaged. seed: of these. batch: images in one pass; by default what fits.

    Returns:
        `explained`, `random_explained`, `chosen` [layer, head, step], `size` [layer, head], `similarity` [image, kept],
        and `agreement` [image, kept] for a model's own classes: kept is the number of directions, from 0 to `steps`.

    Raises:
        PrismaError: a single image, no steps or controls, more steps than directions; as `Texts.of` and `record_path`.

    Source: Gandelsman et al. 2310.05916.
    """
    chosen_of, texts = chosen_layers(model.config, layers), Texts.of(model, directions, names, space)
    if len(images) < 2 or not 1 <= steps <= len(texts.names) or controls < 1:
        raise PrismaError(
            f"expected two images or more, from 1 to {len(texts.names)} steps, and one set of random directions or "
            f"more; found {len(images)}, {steps} and {controls}"
        )
    every, output = head_contributions(model, images, texts.space, batch)
    heads = every[:, chosen_of].flatten(1, 2).double().unbind(1)
    spans = [_span(part, texts.directions.to(every.device), steps) for part in heads]
    changed = output.double() - torch.stack([span.lost for span in spans]).sum(0)  # [kept, image, feature]
    kind, own = exact(output).dtype, {"texts": list(texts.names), "own": texts.own}
    arrays = {
        "explained": torch.stack([span.explained for span in spans]).to(kind),
        "random_explained": _by_chance(heads, texts.directions, steps, controls, seed).to(kind),
        "chosen": torch.stack([span.chosen for span in spans]),
        "size": torch.stack([span.size for span in spans]).to(kind),
    }
    of = {"space": texts.space, "layers": chosen_of, **own, "images": len(images), "seed": seed}
    return TextSpan(
        metadata={"analysis": "text_span", **of},
        **{name: x.unflatten(0, (len(chosen_of), -1)) for name, x in arrays.items()},
        similarity=torch.cosine_similarity(changed, output.double(), dim=-1).mT.to(kind),
        agreement=_agreement(model, changed.to(kind), output, texts.space) if texts.own else None,
    )


def _by_chance(heads: Sequence[Tensor], texts: Tensor, steps: int, controls: int, seed: int) -> Tensor:
    """[head, step]: what as many random directions explain, the mean over sets of them."""
    random = torch.Generator().manual_seed(seed)
    sets = [random_texts(texts, random).to(heads[0].device) for _ in range(controls)]
    return torch.stack([torch.stack([_span(x, some, steps).explained for some in sets]).mean(0) for x in heads])


def _agreement(model: ViT, changed: Tensor, output: Tensor, space: str) -> Tensor:
    """[image, kept]: whether the answer is the model's own."""
    found = answers(model, changed.flatten(0, 1), space).view(len(changed), -1)
    return (found == answers(model, output, space)).mT.to(changed)


@dataclass(frozen=True, eq=False)
class _Span:
    """The greedy directions of one head."""

    chosen: Tensor  # [step]
    explained: Tensor  # [step]; NaN for a head that does not vary
    size: Tensor
    lost: Tensor  # [step + 1, image, feature]: what is not spanned after each step


def _span(contributions_BF: Tensor, texts_XF: Tensor, steps: int) -> _Span:
    left = contributions_BF - contributions_BF.mean(0)
    total = left.square().sum()
    if total <= SMALL**2 * contributions_BF.square().sum():  # rounding
        left = torch.zeros_like(left)
        total = left.square().sum()
    basis = span_of(left.mT)
    rows = (texts_XF @ basis) @ basis.mT
    chosen, lost = list[int](), [left]
    for _ in range(steps):
        variance = (left @ rows.mT).square().sum(0)
        best = int(variance.argmax()) if len(variance) else NONE
        row = rows[best]
        if variance[best] <= 1e-20 * total * row.square().sum() or not row.square().sum() > 1e-20:
            chosen.append(NONE)
        else:
            chosen.append(best)
            unit = row / row.norm()
            left = left - (left @ unit)[:, None] * unit
            rows = rows - (rows @ unit)[:, None] * unit
        lost.append(left)
    kept = torch.stack([x.square().sum() for x in lost[1:]])
    explained = 1 - kept / total if total > 0 else kept.new_full((steps,), torch.nan)
    size = (total / len(left)).sqrt()
    return _Span(torch.tensor(chosen), explained, size, torch.stack(lost))
