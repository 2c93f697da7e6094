"""A coder's latents as a folder of files that a browser opens: searched and sorted, and a page for each.

`index.html` works from a disk, without a network. The numbers of all latents are in one file, those of a latent's page
in a file for each 64 of them, which is read when one is looked at, and the images are files of their own.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prisma import __version__
from prisma.data.pictures import Pictures
from prisma.data.transform import Transform
from prisma.errors import PrismaError, expect_packages, shown
from prisma.files import expect_empty, write_atomic
from prisma.filesystem import given
from prisma.sparse.coders import Coder
from prisma.sparse.latents import Latents
from prisma.sparse.naming import Proposal
from prisma.view.browser import Array, View, numbers
from prisma.view.browser.payload import levels
from prisma.view.browser.static import pack_script, page_files

DATA, IMAGES = "data/", "images/"
PART = 64  # latents in a file
SIDE = 160  # pixels of the longer side of an image
SMALL = 64  # pixels up to which images are kept exactly
LARGEST = 4  # outputs that a latent raises, and that it lowers, and classes that it is like
TOLD = ("fvu", "fvu_held_out", "l0", "dead", "gamma", "images", "steps", "tokens", "seed")  # of the training


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
    outputs = _named(labels, found.effect)
    facts, arrays = _index(found, coder, title or _title(coder), outputs, _named(labels, found.classes), names)
    footer = f"Computed once, with Prisma {__version__}; it needs no server."
    files = page_files(facts["title"], footer, "dashboard", {"base": DATA})
    files[f"{DATA}latents.js"] = pack_script("latents", View({**facts, "kind": kind}, arrays))
    for name, data in files.items():
        write_atomic(root / name, data)
    for part, start in enumerate(range(0, len(found.density), PART)):
        rows = range(start, min(start + PART, len(found.density)))
        view = _part(found, rows, outputs, _named(labels, found.classes), captions)
        write_atomic(root / f"{DATA}part-{part}.js", pack_script(f"part-{part}", view))
    return root / "index.html"


def _title(coder: Coder) -> str:
    return f"{coder.config.width:,} latents of {coder.site or 'an unnamed site'}"


def _named(labels: Sequence[str], of: Tensor | None) -> list[str]:
    """A name for each column."""
    count = 0 if of is None else of.shape[1]
    known = [shown(label) for label in labels] if len(labels) == count else []
    return known or [f"output {i}" for i in range(count)]


def _index(
    found: Latents, coder: Coder, title: str, outputs: list[str], classes: list[str], names: Mapping[int, Proposal]
) -> tuple[dict[str, Any], dict[str, Array]]:
    """What the page of all latents shows."""
    meta, training = found.metadata, coder.metadata.get("training", {})
    about = [["coder", repr(coder)], ["images looked at", f"{meta['images']:,}"], ["tokens", f"{meta['tokens']:,}"]]
    about += [[f"training: {name}", _said(training[name])] for name in TOLD if name in training]
    facts = {
        "title": shown(title), "width": len(found.density), "part": PART, "grid": meta["grid"][1:] or None,
        "prefix": len(meta["prefix"]), "prefixes": list(meta["prefix"]), "outputs": outputs, "classes": classes,
        "effects": found.effect is not None, "about": about,
        "names": [[latent, shown(name.name), shown(name.by)] for latent, name in names.items()],
        "what": "logits" if meta["classes"] else "features", "on": meta["effect_images"],
        "says": "Each latent with the image in which it is most active: bright where it is, dark elsewhere. "
        "Click one for all that is known of it.",
    }  # fmt: skip
    arrays = {
        "density": numbers(found.density),
        "strength": numbers(found.strength[:, 0]),
        "image": numbers(found.image[:, 0]),
        "maps": levels(_shares(found)[:, :1]),
    }
    if found.effect is not None:
        largest = found.effect.abs().max(1)
        arrays |= {"effect": numbers(largest.values), "output": numbers(largest.indices)}
    if found.classes is not None:
        arrays["class"] = numbers(found.classes.argmax(1))
    return facts, arrays


def _said(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else shown(str(value), 80)


def _shares(found: Latents) -> Tensor:
    """[latent, rank, token]: how active, as a share of the strongest token of the image."""
    return found.maps.abs() / found.strength.clamp_min(1e-30)[..., None]


def _part(found: Latents, rows: range, outputs: list[str], classes: list[str], captions: Sequence[str]) -> View:
    """What the pages of some latents show."""
    some = slice(rows.start, rows.stop)
    latents = []
    for j in rows:
        images = [i for i in found.image[j].tolist() if i >= 0]
        latents.append(
            {
                "captions": [shown(captions[i]) for i in images],
                "effects": _largest(found.effect, j, outputs),
                "classes": _largest(found.classes, j, classes),
                "near": [
                    [k, round(cosine, 4)]
                    for k, cosine in zip(found.near[j].tolist(), found.near_cosine[j].tolist(), strict=True)
                ],
            }
        )
    return View(
        {"latents": latents},
        {
            "image": numbers(found.image[some]),
            "strength": numbers(found.strength[some]),
            "maps": levels(_shares(found)[some]),
            "histogram": numbers(found.histogram[some]),
            "range": numbers(found.range[some]),
        },
    )


def _largest(of: Tensor | None, latent: int, names: Sequence[str]) -> list[tuple[str, float]]:
    """The largest and the smallest numbers of a latent, with their names, from the largest on; none if all are zero."""
    if of is None or not of[latent].any():
        return []
    order = of[latent].argsort(descending=True, stable=True).tolist()
    ends = order if len(order) <= 2 * LARGEST else [*order[:LARGEST], *order[-LARGEST:]]
    return [(names[i], float(f"{of[latent, i].item():.4g}")) for i in ends]


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
