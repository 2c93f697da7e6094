"""`prisma.load`: a model and everything needed to use it, from wherever it is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from prisma.checkpoint import CONFIG, WEIGHTS, Checkpoint, read_checkpoint
from prisma.config import ViTConfig
from prisma.data.transform import Transform
from prisma.errors import PrismaError, nearest
from prisma.pretrained.families import family_of, text_family_of
from prisma.pretrained.family import Family
from prisma.pretrained.opened import ImageSize, Opened, Text
from prisma.pretrained.opening import expect_no_revision, is_folder, library_of, open_source
from prisma.pretrained.rules import convert
from prisma.pretrained.zero_shot import zero_shot
from prisma.repository import Published
from prisma.vit import ViT

MICE = Path(__file__).parent / "mice"
"""Checkpoint folders of the mice that come with the package: the final weights of each recipe (`make mice`)."""


@dataclass(frozen=True)
class Loaded:
    """A model ready for use: eval mode, frozen parameters, and what belongs to it."""

    model: ViT
    transform: Transform | None  # a picture -> [channel, height, width]; None: the source's is none that we can equal
    labels: tuple[str, ...]  # class names
    text: Text | None = None  # the text side of a CLIP

    @property
    def config(self) -> ViTConfig:
        return self.model.config

    def zero_shot(self, prompts: Sequence[str]) -> "Loaded":
        """A CLIP as a classifier whose classes are prompts: its logits are `text.similarity` of this model's.

        Every analysis of the new model is in the space of the prompts. It shares this one's weights.

        Raises:
            PrismaError: there is no text side, no prompts, or a prompt has more tokens than the tower takes.
        """
        if self.text is None:
            raise PrismaError("zero-shot classes need a model with a text side, such as a CLIP; this one has none")
        return replace(self, model=zero_shot(self.model, self.text, prompts), labels=tuple(prompts), text=None)


def load(
    ref: str | Path | nn.Module,
    revision: str | None = None,
    hub: str | Path | None = None,
    *,
    image_size: ImageSize = None,
) -> Loaded:
    """Load a model.

    Args:
        ref: a folder written by Prisma, timm, transformers or open_clip; `timm/NAME[.TAG]`, `hf/ORG/NAME`,
            `open_clip/NAME[:TAG]`; `mice/NAME` of a mouse that comes with this package, such as `mice/induction`;
            `OWNER/NAME` of a published mouse; or a live module of a class that Prisma reads, whose weights are copied.
        revision: of a repository of transformers: a branch, tag or commit. Of a published mouse: `main` (default, the
            final weights) or a step's label such as `step-000128`.
        hub: a folder hub for a published mouse; None is the Hugging Face Hub, or its cache when offline.
        image_size: pixels, a side or (height, width): positions resampled as the model's own library does it.

    Raises:
        PrismaError: nothing there, or it is not a whole model.
        UnsupportedModelError: a PrismaError; the model cannot be had exactly, and which property is why.
    """
    if not isinstance(ref, str | Path | nn.Module) or not isinstance(revision, str | None):
        raise PrismaError(
            f"expected a folder, a name or a module, and a revision by its label; found {ref!r:.80}, {revision!r}"
        )
    if not isinstance(hub, str | Path | None):
        raise PrismaError(f"expected a folder as the hub, or None; found {hub!r:.80}")
    opened = open_source(ref, revision, image_size) if hub is None else None
    if opened is not None:
        return _read(opened, copied=isinstance(ref, nn.Module))
    if isinstance(ref, nn.Module):
        raise PrismaError(f"{type(ref).__name__} is here and in no hub; found hub={str(hub)!r}")
    if hub is None and is_folder(ref):
        folder = Path(ref).expanduser()
        if folder.is_file():
            raise PrismaError(f"expected a folder with a model at {folder}, found a file")
    elif hub is None and str(ref).startswith("mice/"):
        folder = _shipped(str(ref), revision)
    else:
        folder = _published(str(ref), revision, hub)
    checkpoint = read_checkpoint(folder)
    sides = checkpoint.model.config.image_sides
    if image_size is not None and image_size not in (sides, list(sides), sides[0] if sides[0] == sides[1] else sides):
        raise PrismaError(
            f"a checkpoint of Prisma has the image size it was trained with, {sides}; found image_size={image_size}"
        )
    return Loaded(checkpoint.model, _transform(checkpoint, folder), checkpoint.labels)


def _shipped(ref: str, revision: str | None) -> Path:
    """Where a mouse of this package is."""
    known = sorted(f"mice/{folder.name}" for folder in MICE.iterdir())
    if ref not in known:
        raise PrismaError(f"there is no mouse {ref!r} in this package; the nearest: {nearest(ref, known)}")
    expect_no_revision(ref, revision)
    return MICE / ref.removeprefix("mice/")


def _published(repo: str, revision: str | None, hub: str | Path | None) -> Path:
    """Where the files of a published mouse are on this machine."""
    mouse = Published(repo, Path(hub) if hub is not None else None)
    folder = mouse.file(CONFIG, revision).parent
    if (library := library_of(folder)) is not None:
        prefix = "hf" if library == "transformers" else library
        raise PrismaError(f"expected a published mouse, found a model of {library}; it is loaded as {prefix}/{repo}")
    mouse.file(WEIGHTS, revision)
    return folder


def _read(opened: Opened, *, copied: bool = False) -> Loaded:
    """A source's weights in our model; shared with the source's module, which nobody else holds, unless copied."""

    def converted(family: Family, module: nn.Module) -> Any:
        tensors = module.state_dict()
        return convert(
            family.read(module), {n: x.clone() for n, x in tensors.items()} if copied else tensors, family.name
        )

    text = None if opened.text is None else Text(converted(text_family_of(opened.text), opened.text), **opened.pair)
    return Loaded(converted(family_of(opened.module), opened.module), opened.transform, opened.labels, text)


def _transform(checkpoint: Checkpoint, folder: Path) -> Transform | None:
    if not checkpoint.transform:
        return None
    transform, config = Transform.from_dict(checkpoint.transform), checkpoint.model.config
    found, wanted = (transform.size, len(transform.mean)), (config.image_sides, config.channels)
    if found != wanted:
        raise PrismaError(
            f"expected a transform to (size, channels) {wanted} in {folder / CONFIG}, found one to {found}"
        )
    return transform
