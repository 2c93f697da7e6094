"""`prisma.load`: a model and everything needed to use it, from wherever it is."""

from dataclasses import dataclass
from pathlib import Path

from prisma.checkpoint import CONFIG, WEIGHTS, Checkpoint, read_checkpoint
from prisma.config import ViTConfig
from prisma.data.transform import Transform
from prisma.errors import PrismaError
from prisma.repository import Published
from prisma.vit import ViT

FOREIGN = ("timm/", "hf/", "open_clip/")


@dataclass(frozen=True)
class Loaded:
    """A model ready for use: eval mode, frozen parameters, and what belongs to it."""

    model: ViT
    transform: Transform | None  # a picture -> [channel, height, width]
    labels: tuple[str, ...]  # class names
    text: None = None  # text tower of a CLIP

    @property
    def config(self) -> ViTConfig:
        return self.model.config


def load(ref: str | Path, revision: str | None = None, hub: str | Path | None = None) -> Loaded:
    """Load a model.

    Args:
        ref: a checkpoint folder, or `OWNER/NAME` of a published mouse.
        revision: of a published mouse: `main` (default, the final weights) or a step's label such as `step-000128`.
        hub: a folder hub; None is the Hugging Face Hub, or its cache when offline.

    Raises:
        PrismaError: nothing there, or it is not a whole checkpoint.
    """
    if not isinstance(ref, str | Path) or not isinstance(revision, str | None):
        raise PrismaError(
            f"expected a folder or OWNER/NAME, and a revision by its label; found {ref!r:.80}, {revision!r}"
        )
    folder = Path(ref).expanduser()
    if hub is None and (folder.is_dir() or isinstance(ref, Path) or ref.startswith(("/", ".", "~"))):
        if revision is not None:
            raise PrismaError(f"{folder} is a folder and has no revisions; found revision={revision!r}")
    elif str(ref).startswith(FOREIGN):
        raise PrismaError(
            f"expected a checkpoint folder or a published mouse, found {ref}, which is of another library"
        )
    else:
        mouse = Published(str(ref), Path(hub) if hub is not None else None)
        files = [mouse.file(name, revision) for name in (CONFIG, WEIGHTS)]
        folder = files[0].parent
    checkpoint = read_checkpoint(folder)
    return Loaded(checkpoint.model, _transform(checkpoint, folder), checkpoint.labels)


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
