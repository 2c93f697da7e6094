"""A coder's latents as a folder of files that a browser opens: searched and sorted, and a page for each.

`index.html` works from a disk, without a network. The numbers of all latents are in one file, those of a latent's page
in a file for each 64 of them, which is read when one is looked at, and the images are files of their own.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from prisma import __version__
from prisma.analysis.clip_dissect import Proposal
from prisma.data.pictures import Pictures
from prisma.data.transform import Transform
from prisma.errors import PrismaError, expect_packages
from prisma.files import expect_empty, write_atomic
from prisma.filesystem import given
from prisma.sparse.coders import Coder
from prisma.sparse.latent_views import PART, index_of, named, part_of
from prisma.sparse.latents import Latents
from prisma.view.browser import View
from prisma.view.browser.static import pack_script, page_files

DATA, IMAGES = "data/", "images/"
SIDE = 160  # pixels of the longer side of an image
SMALL = 64  # pixels up to which images are kept exactly


def dashboard(
    found: Latents,
    coder: Coder,
    images: Tensor | Pictures,
    transform: Transform,
    out: str | Path,
    *,
    title: str = "",
    labels: Sequence[str] = (),
    names: Mapping[int, Proposal] | None = None,
) -> Path:
    """Write the dashboard of a coder: open `index.html` in a browser.

    Args:
        found: `prisma.sparse.latents` of the coder.
        images: those that it was computed on.
        transform: of the model, from which images are made to look at.
        out: a folder, new or empty.
        title: the heading; by default what the coder is.
        labels: names of the model's outputs, for effects and classes.
        names: proposals for names (`prisma.sparse.naming`), which the pages call proposals.

    Returns:
        the path of `index.html`.

    Raises:
        PrismaError: a folder that is in use, latents of another coder, video, or Pillow is not installed.
    """
    root, names = given(out), names or {}
    if len(found.density) != coder.config.width:
        raise PrismaError(f"expected the latents of this coder, {coder.config.width:,}; found {len(found.density):,}")
    grid = found.metadata["grid"]
    if grid and grid[0] > 1:
        raise PrismaError(f"expected a coder of still images for a dashboard; found one of video, with grid {grid}")
    expect_packages("PIL", extra="data")
    expect_empty(root)
    used = found.image[found.image >= 0].unique().tolist()
    kind = _write_images(root, images, used, transform)
    captions = images.names if isinstance(images, Pictures) else [f"image {i}" for i in range(len(images))]
    outputs = named(labels, found.effect)
    facts, arrays = index_of(found, coder, title or _title(coder), outputs, named(labels, found.classes), names)
    footer = f"Computed once, with Prisma {__version__}; it needs no server."
    files = page_files(facts["title"], footer, "dashboard", {"base": DATA})
    files[f"{DATA}latents.js"] = pack_script("latents", View({**facts, "kind": kind}, arrays))
    for name, data in files.items():
        write_atomic(root / name, data)
    for part, start in enumerate(range(0, len(found.density), PART)):
        rows = range(start, min(start + PART, len(found.density)))
        view = part_of(found, rows, outputs, named(labels, found.classes), captions)
        write_atomic(root / f"{DATA}part-{part}.js", pack_script(f"part-{part}", view))
    return root / "index.html"


def _title(coder: Coder) -> str:
    return f"{coder.config.width:,} latents of {coder.site or 'an unnamed site'}"


def _write_images(root: Path, images: Tensor | Pictures, used: Sequence[int], transform: Transform) -> str:
    """Write the images that latents have, as files to look at; their ending."""
    from PIL import Image

    kind = ""
    for start in range(0, len(used), 32):
        rows = used[start : start + 32]
        inputs = images[torch.tensor(rows)].cpu() if isinstance(images, Tensor) else images.read(rows)
        x = transform.pixels(inputs)
        if not kind:
            kind = "png" if max(x.shape[2:]) <= SMALL else "jpg"
        if (scale := SIDE / max(x.shape[2:])) < 1:
            x = F.interpolate(x, [max(round(side * scale), 1) for side in x.shape[2:]], mode="area")
        pixels = (x.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
        for i, one in zip(rows, pixels, strict=True):
            path = root / IMAGES / f"{i}.{kind}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((one[..., 0] if one.shape[2] == 1 else one[..., :3]).numpy()).save(path, quality=88)
    return kind or "png"
