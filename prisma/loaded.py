"""`prisma.load`: a model and everything needed to use it, from a folder, a hub, or another library."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from prisma.checkpoint import CONFIG, WEIGHTS, Checkpoint, read_checkpoint
from prisma.config import ViTConfig
from prisma.data.transform import Transform
from prisma.errors import PrismaError, UnsupportedModelError, nearest, quoted
from prisma.filesystem import given
from prisma.pretrained.families import family_of, text_family_of
from prisma.pretrained.family import Family
from prisma.pretrained.folders import library_of
from prisma.pretrained.loading import expect_no_revision, is_folder, load_source
from prisma.pretrained.references import hint
from prisma.pretrained.rules import convert
from prisma.pretrained.source import ImageSize, SourceModel, Text
from prisma.pretrained.zero_shot import zero_shot
from prisma.repo_names import expect_repo_name, is_repo_name
from prisma.repository import MICE, Published
from prisma.text import TextTower
from prisma.vit import ViT


@dataclass(frozen=True)
class Loaded:
    """What `prisma.load` returns: a model, and what is needed to use it.

    Attributes:
        model: a `prisma.ViT` in evaluation mode, whose parameters do not require gradients.
        transform: a PIL image -> tensor [channel, height, width], as in the model's own evaluation; None if the model
            does not specify a preprocessing that Prisma can reproduce.
        labels: class names, in the order of the logits; empty if they are unknown.
        text: the text side of an image-text pair such as a CLIP; None if there is none.
    """

    model: ViT
    transform: Transform | None
    labels: tuple[str, ...]
    text: Text | None = None

    def __post_init__(self) -> None:
        if self.transform is not None:
            self.model.pixel_range = self.transform.range  # a run on pixels that the transform cannot give warns

    @property
    def config(self) -> ViTConfig:
        """The architecture of the model: `model.config`."""
        return self.model.config

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input of the model."""
        return self.model.config.input_shape

    def zero_shot(self, prompts: Sequence[str]) -> "Loaded":
        """A CLIP as a classifier whose classes are prompts.

        The logits of the new model are `text.similarity` of this model's, so every analysis of logits is about the
        prompts. The two models share their weights.

        Raises:
            PrismaError: there is no text side, there are no prompts, or a prompt has more tokens than the context.
        """
        if self.text is None:
            raise PrismaError(
                "expected a model with a text side, such as a CLIP, for zero-shot classes; found a model with none"
            )
        return replace(self, model=zero_shot(self.model, self.text, prompts), labels=tuple(prompts), text=None)


def load(
    ref: str | Path | nn.Module,
    revision: str | None = None,
    hub: str | Path | None = None,
    *,
    image_size: ImageSize = None,
) -> Loaded:
    """Load a model with its preprocessing, class names and text tower.

    A model of another library is loaded by that library and converted exactly: its outputs equal those of the library
    up to rounding. `prisma models` lists the supported families.

        loaded = prisma.load("timm/vit_base_patch16_224")
        logits = loaded.model(loaded.transform(image)[None])  # [1, class]; loaded.labels has the names of the classes

    | `ref` | what it is |
    |---|---|
    | `"timm/NAME[.TAG]"` | a model of timm, such as `"timm/vit_base_patch16_224.augreg_in21k"` |
    | `"hf/ORG/NAME"` | a model of transformers on the Hugging Face Hub, such as `"hf/facebook/dinov2-base"` |
    | `"open_clip/NAME[:TAG]"` | a model of open_clip, such as `"open_clip/ViT-B-32:laion2b_s34b_b79k"` |
    | `"open_clip/ORG/NAME"` | a repository on the Hub with a model of open_clip |
    | `"path/to/folder"` | a checkpoint of `prisma train`, or a model that timm, transformers or open_clip saved |
    | `"mice/NAME"` | a mouse in this package, such as `"mice/induction"` |
    | `"OWNER/NAME"` | a published mouse, on the Hugging Face Hub or in a folder hub |
    | an `nn.Module` | a live module of timm, transformers or open_clip; its weights are copied |

    A CLIP has its text tower in `.text`, and is a zero-shot classifier by `.zero_shot(prompts)`.

    Args:
        ref: which model; see the table.
        revision: for transformers, a branch, tag or commit. For a published mouse, `"main"` (the default: the final
            weights) or the label of a training step, such as `"step-000128"`.
        hub: the folder hub of a published mouse; None is the Hugging Face Hub, or its cache when offline.
        image_size: in pixels, a side or (height, width). The model's own library resamples the positions.

    Returns:
        a `Loaded`, with `.model` (a `prisma.ViT` in evaluation mode), `.transform`, `.labels`, `.text` and `.config`.

    Raises:
        PrismaError: there is no such model, or it is incomplete.
        UnsupportedModelError: a PrismaError: the model cannot be converted exactly; the message names the property.
    """
    if not isinstance(ref, str | Path | nn.Module) or not isinstance(revision, str | None):
        raise PrismaError(
            f"expected a folder, a name or a module, and a revision as text; found {ref!r:.80} and {revision!r}"
        )
    if revision == "" or hub == "":
        raise PrismaError(f"expected a revision and a hub, or None; found revision={revision!r} and hub={hub!r}")
    if isinstance(ref, ViT | TextTower):
        raise PrismaError(f"expected a reference, or a module of another library; found a prisma.{type(ref).__name__}")
    if not isinstance(hub, str | Path | None):
        raise PrismaError(f"expected a folder as the hub, or None; found {hub!r:.80}")
    source = load_source(ref, revision, image_size) if hub is None else None
    if source is not None:
        return _converted(source, copied=isinstance(ref, nn.Module))
    if isinstance(ref, nn.Module):
        raise PrismaError(f"expected no hub for a live {type(ref).__name__}; found hub={str(hub)!r}")
    return _read(_folder(ref, revision, hub), image_size)


def _folder(ref: str | Path, revision: str | None, hub: str | Path | None) -> Path:
    """The folder on this machine with the checkpoint that a reference means."""
    if hub is None and is_folder(ref):
        return given(ref)
    if hub is None and str(ref).startswith("mice/"):
        return _shipped(str(ref), revision)
    return _published(str(ref), revision, hub)


def _read(folder: Path, image_size: ImageSize) -> Loaded:
    """The model of a checkpoint folder, which has one image size."""
    checkpoint = read_checkpoint(folder)
    sides = checkpoint.model.config.image_sides
    if image_size is not None and image_size not in (sides, list(sides), sides[0] if sides[0] == sides[1] else sides):
        raise PrismaError(
            f"expected the image size with which this checkpoint was trained, {sides}; found image_size={image_size}"
        )
    return Loaded(checkpoint.model, _transform(checkpoint, folder), checkpoint.labels)


def _shipped(ref: str, revision: str | None) -> Path:
    """The folder of a mouse in this package."""
    known = sorted(f"mice/{folder.name}" for folder in MICE.iterdir())
    if ref not in known:
        raise PrismaError(f"there is no mouse {ref!r} in this package; the nearest: {nearest(ref, known)}")
    expect_no_revision(ref, revision)
    return MICE / ref.removeprefix("mice/")


def _published(repo: str, revision: str | None, hub: str | Path | None) -> Path:
    """The folder on this machine with the files of a published mouse."""
    if hub is None and not is_repo_name(repo):
        try:
            expect_repo_name(repo)
        except PrismaError as error:
            raise PrismaError(
                f"there is no folder {quoted(repo)} here, and it is no name on the Hub: {error}"
            ) from None
    mouse = Published(repo, given(hub) if hub is not None else None)
    folder = mouse.file(CONFIG, revision, hint(repo)).parent
    if (library := library_of(folder)) is not None:
        prefix = "hf" if library == "transformers" else library
        raise PrismaError(f"expected a published mouse; found a model of {library}: load it as {prefix}/{repo}")
    mouse.file(WEIGHTS, revision)
    return folder


def _converted(source: SourceModel, *, copied: bool = False) -> Loaded:
    """Our model with a source's weights: its own tensors, which nothing else uses, or copies of them."""

    def tower(family: Family, module: nn.Module) -> Any:
        tensors = module.state_dict()
        return convert(
            family.read(module), {n: x.clone() for n, x in tensors.items()} if copied else tensors, family.name
        )

    model = tower(family_of(source.module), source.module)
    if source.text is None:
        return Loaded(model, source.transform, source.labels)
    text = Text(tower(text_family_of(source.text), source.text), **source.pair)
    ours, theirs = (next(x.parameters()) for x in (model, text.model))
    if (ours.dtype, ours.device) != (theirs.dtype, theirs.device):
        raise UnsupportedModelError(
            f"expected both towers in one precision, on one device; found images in {ours.dtype} on {ours.device}, "
            f"text in {theirs.dtype} on {theirs.device}: convert the module first, with .float()"
        )
    return Loaded(model, source.transform, source.labels, text)


def _transform(checkpoint: Checkpoint, folder: Path) -> Transform | None:
    if not checkpoint.transform:
        return None
    transform, config = Transform.from_dict(checkpoint.transform), checkpoint.model.config
    found, wanted = (transform.size, len(transform.mean)), (config.image_sides, config.channels)
    if found != wanted:
        raise PrismaError(
            f"expected a transform whose output has (size, channels) = {wanted} in {folder / CONFIG}; found {found}"
        )
    return transform
