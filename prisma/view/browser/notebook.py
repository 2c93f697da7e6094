"""The output of a notebook's cell: one piece of HTML with everything in it, which works several times in one page.

The numbers are a packed view in an attribute, as base64; the script unpacks them and draws the figure that
`facts["figure"]` names. So no string of a result is ever read as HTML. Where scripts do not run, in a notebook that is
not trusted, a line of text stands instead.
"""

import html
import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from prisma import __version__
from prisma.errors import shown
from prisma.view.browser import script, style
from prisma.view.browser.lens import lens_arrays, stage_names
from prisma.view.browser.parts import Part, parts_facts, parts_of, written
from prisma.view.browser.payload import Array, View, numbers

MOST_BYTES = 2 * 2**20  # of arrays in one output
MOST_SETTINGS = 2_000  # characters of what a result was computed with


def output(view: View) -> str:
    """A view as the HTML of a cell's output."""
    title = html.escape(str(view.facts["title"]))
    words = f"{title}: run this cell, or trust the notebook, to see the figure."
    pack = b64encode(view.pack()).decode()
    return (
        f'<div class="pz-root pz-notebook" data-pack="{pack}"><p>{words}</p></div>'
        f"<style>{style()}</style><script>{script('notebook')}</script>"
    )


def maps_view(
    arrays: Mapping[str, Tensor],
    axes: Mapping[str, Sequence[str]],
    names: Mapping[str, Sequence[str]],
    metadata: Mapping[str, Any],
) -> View:
    """Arrays with named axes, as maps of their last two axes. What does not fit in `MOST_BYTES` is cut to its first
    images, or left out, and the output says so."""
    packed: dict[str, Array] = {}
    said, left = [], MOST_BYTES
    for name, whole in arrays.items():
        images = len(whole) if axes[name][:1] == ("image",) else 1
        fit = min(images, left * images // max(whole.numel() * 4, 1)) if whole.numel() else 0
        if not fit:
            said.append(f"{name} {list(whole.shape)} is left out: it is too large for a notebook, or empty.")
            continue
        x = whole[:fit] if fit < images else whole
        if fit < images:
            said.append(f"{name} has the first {fit} of {images} images.")
        packed[name] = numbers(x, missing=True)
        left -= x.numel() * 4
    facts = {
        **_head("maps", metadata),
        "axes": {name: list(axes[name]) for name in packed},
        "names": {axis: [shown(name) for name in known] for axis, known in names.items()},
        "said": said,
    }
    return View(facts, packed)


def lens_view(readout: Tensor, tokens: Tensor, metadata: Mapping[str, Any]) -> View:
    """A logit lens [image, stage, class] and [image, stage, token, class]: a table for each of the first images."""
    stages, classes = readout.shape[1:]
    model = {"layers": stages - 1, "labels": [f"class {i}" for i in range(classes)], **_line(tokens.shape[2])}
    packed: dict[str, Array] = {}
    images: list[dict[str, Any]] = []
    for logits, alone in zip(readout, tokens, strict=True):
        arrays = lens_arrays(logits, alone)
        if images and sum(len(a.data) for a in (*packed.values(), *arrays.values())) > MOST_BYTES:
            break
        packed |= {f"{len(images)}/{name}": array for name, array in arrays.items()}
        answer = int(logits[-1].argmax())
        images.append({"stages": stage_names(stages - 1), "answer": answer, "state": {"token": 0}})
    return View(
        {**_head("lens", metadata), "model": model, "images": images, "said": _first(len(images), readout)}, packed
    )


def parts_view(
    components: Tensor, heads: Tensor | None, value: Tensor, baseline: Tensor, metadata: Mapping[str, Any]
) -> View:
    """A decomposed metric, components [image, component] and heads [image, layer, head]: bars for each of the first
    images; with integrated norms the baseline is a bar too."""
    parts = parts_of(metadata["components"], 0 if heads is None else heads.shape[-1])
    most = max(1, MOST_BYTES // (4 * (len(parts) + 1)))
    packed: dict[str, Array] = {}
    images: list[dict[str, Any]] = []
    for i in range(min(len(value), most, 64)):
        bars, named = written(parts, components[i], None if heads is None else heads[i]), parts
        if float(baseline[i]):
            bars, named = torch.cat([bars, baseline[i : i + 1]]), [*parts, Part("the baseline", "readout", -1)]
        packed[f"{i}/parts"] = numbers(bars)
        facts = parts_facts(named, float(value[i]), float(bars.double().sum()))
        images.append({**facts, "metric": shown(metadata["metric"]), "state": {}})
    model = {"labels": [], "layers": 0, **_line(1)}
    return View(
        {**_head("decompose", metadata), "model": model, "images": images, "said": _first(len(images), value)}, packed
    )


def _head(figure: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    title = shown(str(metadata.get("analysis", "result"))).replace("_", " ")
    settings = json.dumps(dict(metadata), default=str)
    settings = settings if len(settings) <= MOST_SETTINGS else settings[:MOST_SETTINGS] + "…"
    return {"figure": figure, "title": title, "settings": settings, "prisma": __version__}


def _line(tokens: int) -> dict[str, Any]:
    """A result does not know where its tokens are in the image: they stand in a line."""
    return {"grid": [1, tokens], "prefix": [], "flat": True}


def _first(count: int, of: Tensor) -> list[str]:
    return [] if count == len(of) else [f"These are the first {count} of {len(of)} images."]
