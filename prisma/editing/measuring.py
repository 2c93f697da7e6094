"""How good is an edit of a class: does it do what it should, for unseen images, and nothing else?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prisma.analysis.border import guarded, record
from prisma.analysis.statistics import wilson_interval
from prisma.batching import inputs_per_pass
from prisma.editing.weight_edit import WeightEdit
from prisma.errors import PrismaError, quoted
from prisma.runs import Edits, finish, in_steps, run
from prisma.vit import ViT

NEAR = 0.1


@dataclass(frozen=True)
class Share:
    """So many of so many images, with a Wilson interval of 95 %, which is one too where all or none are counted."""

    count: int
    n: int

    @property
    def value(self) -> float:
        """The share; NaN of no images."""
        return self.count / self.n if self.n else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """The lower and the upper end; (0, 1) of no images."""
        if not self.n:
            return 0.0, 1.0
        low, high = wilson_interval(torch.tensor(self.value), torch.tensor(self.n)).tolist()
        return low, high

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.3f} [{low:.3f}, {high:.3f}] of {self.n:,}"


@dataclass(frozen=True)
class EditMeasures:
    """What an edit from one class to another does. Every field but `near_gap` is a share of images.

    Attributes:
        success: key images that are now called `target`; of no images where none are known.
        generalisation: unseen images of the class, which were called by its name, that are now called `target`.
        forgotten: of the same images, those that are no longer called by the class's name, whatever they are called.
        locality: images of all other classes whose answer is the same as before. Near 1, nothing else changed.
        near_boundary: the same for the tenth of these images whose two likeliest classes were closest.
        near_gap: the largest difference of these two probabilities among that tenth.
    """

    success: Share
    generalisation: Share
    forgotten: Share
    locality: Share
    near_boundary: Share
    near_gap: float

    @property
    def shares(self) -> dict[str, Share]:
        return {name: x for name, x in vars(self).items() if isinstance(x, Share)}

    def rows(self) -> list[dict[str, str]]:
        """Of a table: each share with its interval, and of how many images it is."""
        return [
            {
                "measure": name.replace("_", " "),
                "share": f"{x.value:.3f}" if x.n else "",
                "95 %": "{:.3f} to {:.3f}".format(*x.interval),
                "images": f"{x.n:,}",
            }
            for name, x in self.shares.items()
        ]

    def to_dict(self) -> dict[str, Any]:
        """JSON values; None for the share of no images."""
        shares = {
            name: {"value": x.value if x.n else None, "interval": list(x.interval), "n": x.n}
            for name, x in self.shares.items()
        }
        return {**shares, "near_gap": self.near_gap}


@guarded
@torch.no_grad()
def measure_edit(
    model: ViT,
    edit: Any,
    images: Tensor,
    labels: Tensor,
    source: int,
    target: int,
    *,
    key_images: Tensor | None = None,
    batch: int | None = None,
) -> EditMeasures:
    """Does an edit do what it should, for unseen images too, and nothing else?

    Args:
        model: as it was before.
        edit: a `WeightEdit`, or edits of sites as for `prisma.run`, such as those of a sparse latent.
        images, labels: that were not used to make it, of all classes.
        source, target: numbers of the two classes.
        key_images: those it was made with, for `success`.

    Raises:
        PrismaError: as `prisma.run`; no images, or none of the class.
    """
    return measure_edits(model, [edit], images, labels, source, target, key_images=[key_images], batch=batch)[0]


@guarded
@torch.no_grad()
def measure_edits(
    model: ViT,
    edits: Sequence[Any],
    images: Tensor,
    labels: Tensor,
    source: int,
    target: int,
    *,
    key_images: Sequence[Tensor | None] = (),
    batch: int | None = None,
) -> list[EditMeasures]:
    """The same of several edits of one model between the same classes; what their runs share is computed once.

    Args:
        key_images: for each edit, those it was made with; or of none.

    Raises:
        PrismaError: as `measure_edit`.
    """
    if len(images) != len(labels) or not bool((labels == source).any()):
        raise PrismaError(
            f"expected images with labels, some of class {source}; found {len(images)} images and {len(labels)} labels"
        )
    keyed = list(key_images) or [None] * len(edits)
    labels = labels.to(images.device)
    before, *after = answers(model, [None, *edits], images, batch)
    own = [
        answers(model, [edit], some, batch)[0].argmax(-1) if some is not None and len(some) else labels[:0]
        for edit, some in zip(edits, keyed, strict=True)
    ]
    return [
        _measures(before.softmax(-1), x.argmax(-1), y, labels, source, target) for x, y in zip(after, own, strict=True)
    ]


def _measures(before: Tensor, after: Tensor, own: Tensor, labels: Tensor, source: int, target: int) -> EditMeasures:
    """From the probabilities before, and the answers after to these images and to the key images."""
    top = before.topk(min(2, before.shape[-1]), dim=-1)
    said = top.indices[:, 0]
    mine, rest = (labels == source) & (said == source), labels != source
    gaps = (top.values[:, 0] - top.values[:, -1])[rest]
    same = (after == said)[rest]
    nearest = gaps.argsort()[: max(round(NEAR * len(gaps)), 1)]
    return EditMeasures(
        success=_share(own == target),
        generalisation=_share(after[mine] == target),
        forgotten=_share(after[mine] != source),
        locality=_share(same),
        near_boundary=_share(same[nearest]),
        near_gap=float(gaps[nearest].max()) if len(gaps) else float("nan"),
    )


def answers(
    model: ViT, edits: Sequence[WeightEdit | Edits | None], images: Tensor, batch: int | None = None
) -> list[Tensor]:
    """Logits [image, class] with each edit, of weights or of sites. The model is afterwards bitwise what it was.

    Up to the first block that an edit of weights changes, its run is the one without an edit, and is not repeated.
    """
    for edit in edits:
        if not isinstance(edit, WeightEdit | Mapping | None):
            raise PrismaError(f"expected a WeightEdit, or edits of sites by name; found {quoted(edit)}")
    starts = [_first_block(model, edit) for edit in edits]
    streams = sorted({_stream(model, start) for start in starts if start})
    parts: list[list[Tensor]] = [[] for _ in edits]
    for some in images.split(inputs_per_pass(model, batch)):
        logits, acts = record(model, some, streams)
        for found, edit, start in zip(parts, edits, starts, strict=True):
            if edit is None:
                found.append(logits)
            elif not isinstance(edit, WeightEdit):
                found.append(run(model, some, edit))
            else:
                with edit.apply(model):
                    x = acts[_stream(model, start)] if start else None
                    found.append(run(model, some) if x is None else finish(model, x, some, start=start))
    return [torch.cat(found) for found in parts]


def _first_block(model: ViT, edit: WeightEdit | Edits | None) -> int:
    """The first block whose weights an edit changes, n_layers if only the readout's; 0 where a run must be whole."""
    if not isinstance(edit, WeightEdit) or not in_steps(model, "resid_pre"):
        return 0
    layers, where = model.config.n_layers, [part.weight.split(".") for part in edit.parts]
    return min(int(at[1]) if at[0] == "blocks" else layers if at[0] == "readout" else 0 for at in where)


def _stream(model: ViT, start: int) -> str:
    """The site of the stream that a run from a block on begins with."""
    last = model.config.n_layers
    return f"blocks.{start}.resid_pre" if start < last else f"blocks.{last - 1}.resid_post"


def _share(hits: Tensor) -> Share:
    return Share(int(hits.sum()), len(hits))
