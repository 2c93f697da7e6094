"""The least change of one MLP of the sprites mouse, layer by layer, and beside it the other ways to edit a class.

    python -m benchmarks.editing [EDITS] [--processes 2]    measure: writes editing.json, and continues what is there
    python -m benchmarks.editing page                       the table and the picture of docs/editing.md, from it

Docs say how to read the rows. An edit turns one class into another, both drawn; it is made on training images and
measured on test images. What is done to one pair of classes in one layer is a piece of work of some seconds, and is in
the file when it is done: a run that is stopped loses the pieces in flight alone. Pieces come pair after pair, so that
there is a whole table from the first pair on.
"""

import argparse
import json
import multiprocessing
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from typing import Any

import torch

import prisma
from prisma.analysis.statistics import share_interval
from prisma.editing import Covariance, Request, covariances, edit_class, latent_swap, layer_by_tracing
from prisma.editing.edit_data import EditData, edit_data
from prisma.editing.measuring import measure_edits
from prisma.loaded import Loaded
from prisma.sparse import Coder, train

FILE = Path(__file__).with_suffix(".json")
BEGIN, END = "<!-- table -->", "<!-- /table -->"
MEASURES = ("success", "generalisation", "forgotten", "locality", "near_boundary")
MOUSE, LAYERS = "mice/sprites", 6
OTHERS = {"row of the head": "class-row", "4 heads": "head-edit", "steering": "steering"}
OLD, TRACED = 1500, 100
Work = dict[str, tuple[Any, list[int]]]
"""Row of the table -> the edit, and which images gave its keys."""


@cache
def subject() -> tuple[Loaded, EditData]:
    loaded = prisma.load(MOUSE)
    return loaded, edit_data("sprites", loaded)


@cache
def of_old(layer: int, role: str) -> Covariance:
    loaded, data = subject()
    assert data.coverage is not None, "sprites have masks"
    return covariances(loaded.model, data.images[:OLD], layer, (role,), coverage=data.coverage[:OLD])[role]


def in_layer(layer: int, a: int, b: int) -> Work:
    """Edits of one MLP: keys of one image, of averages, and of each image; at the class token and the object."""
    loaded, data = subject()
    given, last = (loaded.model, data.images, data.labels, a, b), layer == LAYERS - 1
    edits = {}
    for n in (1, 8, 64):
        name = f"layer {layer}, key of {n} image{'s' * (n > 1)}"
        edits[name] = edit_class(*given, keys=n, layer=layer, covariance=of_old(layer, "class"))
    if last:
        edits[f"layer {layer}, 64 keys"] = edit_class(
            *given, method="multi-key", layer=layer, covariance=of_old(layer, "class")
        )
    else:  # the last MLP at the patches reaches no logit
        edits[f"layer {layer}, key of 64 objects' patches"] = edit_class(
            *given, layer=layer, role="object", coverage=data.coverage, covariance=of_old(layer, "object")
        )
    return {name: (edit, list(edit.about["rows"])) for name, edit in edits.items()}


def otherwise(coder: Coder | None, a: int, b: int) -> Work:
    """The competitors, of the last layer where they have one."""
    loaded, data = subject()
    given = (loaded.model, data.images, data.labels, a, b)
    edits: dict[str, Any] = {name: edit_class(*given, method=method) for name, method in OTHERS.items()}
    for name, box in (("fine-tuning, box 0.5", 0.5), ("fine-tuning, free", None)):
        edits[name] = edit_class(*given, method="fine-tuning", box=box)
    asked = Request.of(*given)
    assert coder is not None
    edits["4 latents of a sparse coder"] = latent_swap(asked, coder)
    return {name: (edit, list(asked.own().rows)) for name, edit in edits.items()}


def piece(which: int | None, coder: Coder | None, a: int, b: int) -> tuple[dict[str, list[list[int]]], float]:
    """Row -> [count, images] of each measure; and the seconds. `which` is a layer, or None for the competitors."""
    torch.set_num_threads(1)
    start, (loaded, data) = time.perf_counter(), subject()
    work = otherwise(coder, a, b) if which is None else in_layer(which, a, b)
    keyed = [data.images[rows] for _, rows in work.values()]
    found = measure_edits(
        loaded.model, [edit for edit, _ in work.values()], data.test_images, data.test_labels, a, b, key_images=keyed
    )
    rows = {
        name: [[x.shares[measure].count, x.shares[measure].n] for measure in MEASURES]
        for name, x in zip(work, found, strict=True)
    }
    return rows, time.perf_counter() - start


def main(edits: int, processes: int) -> None:
    loaded, data = subject()
    draw = torch.Generator().manual_seed(0)
    pairs = [torch.randperm(loaded.config.n_classes, generator=draw)[:2].tolist() for _ in range(edits)]
    found = _begun(loaded, data)
    wanted = [
        (f"{a} to {b}, {'others' if which is None else f'layer {which}'}", (which, a, b))
        for a, b in pairs
        for which in (LAYERS - 1, None, *reversed(range(LAYERS - 1)))
    ]
    waiting = {name: what for name, what in wanted if name not in found["pieces"]}
    print(f"{len(wanted)} pieces, of which {len(wanted) - len(waiting)} are there", flush=True)
    coder = _coder(loaded, data) if any(which is None for which, _, _ in waiting.values()) else None
    spawn = multiprocessing.get_context("spawn")
    start = time.perf_counter()
    with ProcessPoolExecutor(processes, spawn) as pool:
        running = {pool.submit(piece, which, coder, a, b): name for name, (which, a, b) in waiting.items()}
        for done, job in enumerate(as_completed(running), 1):
            found["pieces"][running[job]], seconds = job.result()
            FILE.write_text(json.dumps(found) + "\n")
            left = (time.perf_counter() - start) / done * (len(running) - done)
            print(f"{running[job]}: {seconds:.0f} s; about {left:.0f} s left", flush=True)
    print(table(found))


def _begun(loaded: Loaded, data: EditData) -> dict[str, Any]:
    """What a run before left, if it measured the same; else the layer that causal tracing finds, and no pieces."""
    what = {"model": MOUSE, "made_with": len(data.labels), "images": len(data.test_labels), "old": OLD}
    if FILE.exists() and (there := json.loads(FILE.read_text())).get("what") == what:
        return dict(there)
    assert data.coverage is not None, "sprites have masks"
    layer, effect = layer_by_tracing(loaded.model, data.images[-TRACED:], data.coverage[-TRACED:])
    return {"what": what, "traced": {"layer": layer, "effect": [round(x, 4) for x in effect.tolist()]}, "pieces": {}}


def _coder(loaded: Loaded, data: EditData) -> Coder:
    """A coder of the class token at the end, which the last MLP writes last."""
    print("training a sparse coder", flush=True)
    site = f"blocks.{LAYERS - 1}.resid_post"
    return train(loaded.model, data.images, site=site, width=256, k=8, tokens="class", steps=400, batch=512)


def rows_of(found: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Row, the last layer first -> [3, measure]: mean over edits, and the two ends of its interval.

    The interval is the wider of a bootstrap over edits and of that of Wilson over the images of all of them.
    """
    counts: dict[str, list[Any]] = {}
    for rows in found["pieces"].values():
        for name, row in rows.items():
            counts.setdefault(name, []).append(row)
    ordered = sorted(counts, key=lambda name: -int(name.split()[1].strip(",")) if name.startswith("layer") else 1)
    values = {name: torch.tensor(counts[name], dtype=torch.float64) for name in ordered}
    shares = {name: x[..., 0] / x[..., 1] for name, x in values.items()}
    return {
        name: torch.cat([x.mean(0)[None], share_interval(x, values[name][..., 1].sum(0))]) for name, x in shares.items()
    }


def table(found: Mapping[str, Any]) -> str:
    """The rows as Markdown."""
    lines = [
        f"| edit | pairs | {' | '.join(name.replace('_', ' ') for name in MEASURES)} |",
        f"|---|---|{'---|' * len(MEASURES)}",
    ]
    for name, row in rows_of(found).items():
        pairs = sum(name in rows for rows in found["pieces"].values())
        cells = [f"{value:.3f} ({low:.3f} to {high:.3f})" for value, low, high in row.T.tolist()]
        lines.append(f"| {name} | {pairs} | {' | '.join(cells)} |")
    return "\n".join(lines)


def page() -> None:
    """Write the table and the picture of the page."""
    found = json.loads(FILE.read_text())
    path = FILE.parent.parent / "docs" / "editing.md"
    text = path.read_text()
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    path.write_text(f"{text[:begin]}\n{in_words(found)}\n\n{table(found)}\n\n{text[end:]}")
    draw(found).savefig(path.with_suffix(".png"), dpi=120, bbox_inches="tight")


def in_words(found: Mapping[str, Any]) -> str:
    effects = ", ".join(f"{x:.3f}" for x in found["traced"]["effect"])
    return (
        f"{found['what']['images']:,} test images. Causal tracing of {TRACED} training images: restoring the output of "
        f"the MLP at the class token gives back {effects} of the class's probability, from layer 0 on; most in layer "
        f"{found['traced']['layer']}."
    )


def draw(found: Mapping[str, Any]) -> Any:
    """Generalisation and locality of an edit of each layer, by its key; and the effect of each MLP."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(11, 3), layout="constrained")
    rows = rows_of(found)
    for axis, measure in zip(axes, ("generalisation", "locality"), strict=False):
        for key in ("1 image", "8 images", "64 images", "64 objects' patches"):
            of_layer = [(at, rows.get(f"layer {at}, key of {key}")) for at in range(LAYERS)]
            there = [(at, x[:, MEASURES.index(measure)]) for at, x in of_layer if x is not None]
            layers, values = [at for at, _ in there], torch.stack([x for _, x in there])
            axis.plot(layers, values[:, 0], marker="o", label=f"key of {key}")
            axis.fill_between(layers, values[:, 1], values[:, 2], alpha=0.15)
        axis.set(title=measure, xlabel="layer", xticks=range(LAYERS))
    axes[1].legend(fontsize=8, loc="lower right")
    effect = found["traced"]["effect"]
    axes[2].bar(range(len(effect)), effect)
    axes[2].set(title="causal tracing: effect of the MLP\nat the class token", xlabel="layer")
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", default="8", help="how many pairs of classes, or page")
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    if asked.what == "page":
        page()
    else:
        main(int(asked.what), asked.processes)
