"""What a viewer gets of the latents of a coder: numbers of all of them, and everything of some of them.

The dashboard has them in files, the app sends them; `latent_data.js` of the viewer reads them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from prisma.analysis.clip_dissect import Proposal
from prisma.errors import shown
from prisma.sparse.coders import Coder
from prisma.sparse.latents import Latents
from prisma.view.browser import Array, View, numbers
from prisma.view.browser.payload import levels

PART = 64  # latents in a file of the dashboard
LARGEST = 4  # outputs that a latent raises, and that it lowers, and classes that it is like
TOLD = ("fvu", "fvu_held_out", "l0", "dead", "gamma", "images", "steps", "tokens", "seed")  # of the training


def named(labels: Sequence[str], of: Tensor | None) -> list[str]:
    """A name for each column."""
    count = 0 if of is None else of.shape[1]
    known = [shown(label) for label in labels] if len(labels) == count else []
    return known or [f"output {i}" for i in range(count)]


def index_of(
    found: Latents, coder: Coder, title: str, outputs: list[str], classes: list[str], names: Mapping[int, Proposal]
) -> tuple[dict[str, Any], dict[str, Array]]:
    """What the page of all latents shows."""
    meta, training = found.metadata, coder.told
    about = [["coder", repr(coder)], ["images looked at", f"{meta['images']:,}"], ["tokens", f"{meta['tokens']:,}"]]
    about += [[f"training: {name}", _said(training[name])] for name in TOLD if name in training]
    facts = {
        "title": shown(title), "width": len(found.density), "part": PART, "grid": meta["grid"][1:] or None,
        "prefix": len(meta["prefix"]), "prefixes": list(meta["prefix"]), "outputs": outputs, "classes": classes,
        "effects": found.effect is not None, "about": about,
        "names": [[latent, shown(name.name), shown(name.by)] for latent, name in names.items()],
        "what": "logits" if meta["classes"] else "features", "on": meta["effect_images"],
        "says": "Each latent with the image in which it is most active: bright and framed where it is, dark elsewhere. "
        "Click one for all that is known of it.",
    }  # fmt: skip
    arrays = {
        "density": numbers(found.density),
        "strength": numbers(found.strength[:, 0]),
        "image": numbers(found.image[:, 0]),
        "maps": levels(_shares(found, ranks=slice(1))),
    }
    if found.effect is not None:
        largest = found.effect.abs().max(1)
        arrays |= {"effect": numbers(largest.values), "output": numbers(largest.indices)}
    if found.classes is not None:
        arrays["class"] = numbers(found.classes.argmax(1))
    return facts, arrays


def _said(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else shown(str(value), 80)


def _shares(found: Latents, latents: slice = slice(None), ranks: slice = slice(None)) -> Tensor:
    """[latent, rank, token] of some latents: how active, as a share of the strongest token of the image."""
    return found.maps[latents, ranks].abs() / found.strength[latents, ranks].clamp_min(1e-30)[..., None]


def part_of(found: Latents, rows: range, outputs: list[str], classes: list[str], captions: Sequence[str]) -> View:
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
            "maps": levels(_shares(found, some)),
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
