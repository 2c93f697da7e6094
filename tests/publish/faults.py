"""Faults that somebody plants in a published mouse, and the problem by which each must be found."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from safetensors.torch import load, save

from prisma.checkpoint import CONFIG, WEIGHTS
from prisma.publish.manifest import Manifest
from prisma.publish.plan import CARD
from prisma.repository import MAIN, MANIFEST
from prisma.run_folder import METRICS, PROBE, RECIPE, RESULTS
from tests.publish.places import Place, edit, edit_text, fit, state, weights

STEP, OTHER, LAST = "step-000002", "step-000004", "step-000006"
Fault = Callable[[Place], object]


def rows(place: Place, change: Callable[[Manifest], Manifest]) -> None:
    """Another manifest, whose hash its commit states."""
    state(place, change(Manifest.parse(place.read(MAIN, MANIFEST))))


def relabel(place: Place, step: int) -> None:
    """The row of step 2 says that it is of another step."""
    rows(
        place,
        lambda m: replace(m, checkpoints=tuple(replace(r, step=step) if r.step == 2 else r for r in m.checkpoints)),
    )


def without(m: Manifest, step: int) -> Manifest:
    return replace(m, checkpoints=tuple(row for row in m.checkpoints if row.step != step))


def drop(place: Place, *, schedule: bool = False) -> None:
    """A step is gone together with its row (and its place in the schedule)."""
    place.remove(STEP)
    rows(place, lambda m: without(m, 2))
    if schedule:
        rows(place, lambda m: replace(m, steps=tuple(step for step in m.steps if step != 2)))


def fitted(fault: Fault) -> Fault:
    """The fault, and a manifest that was made to fit it."""

    def make(place: Place) -> None:
        fault(place)
        fit(place)

    return make


def serve(label: str, name: str, data: bytes | None) -> Fault:
    return lambda place: place.serve(label, {name: data})


def change_config(change: Callable[[dict[str, Any]], object], *labels: str) -> Fault:
    def make(place: Place) -> None:
        for label in labels or (MAIN,):
            edit(place, CONFIG, change, label)

    return make


def relu(config: dict[str, Any]) -> None:
    config["architecture"]["activation"] = "relu"


def darker(place: Place) -> None:
    """Other pixels in the probe, after the images of the fingerprint."""
    tensors = load(place.read(MAIN, PROBE))
    tensors["images"][4:] *= 0.5
    place.serve(MAIN, {PROBE: save(tensors)})


def better(place: Place) -> None:
    edit(place, RESULTS, lambda results: results["results"][0].update(value=0.9999))


def other_loss(place: Place) -> None:
    """Another loss of the checkpoint at step 2."""
    line = place.read(MAIN, METRICS).decode().splitlines()[2]
    edit_text(place, METRICS, line, json.dumps({**json.loads(line), "test_loss": 0.5}))


def other_card(place: Place) -> None:
    edit_text(place, CARD, "accuracy 0.0", "accuracy 0.9")


def recipe(change: Callable[[dict[str, Any]], object]) -> Fault:
    return lambda place: edit(place, RECIPE, change)


def manifest(**changes: Any) -> Fault:
    return lambda place: rows(place, lambda m: replace(m, **changes))


def other_weights(label: str, of: str) -> Fault:
    return lambda place: place.serve(label, {WEIGHTS: place.read(of, WEIGHTS)})


def changed_weights(label: str, of: str, shift: float = 0.0, **header: str) -> Fault:
    return lambda place: place.serve(label, {WEIGHTS: weights(place, of, shift=shift, **header)})


ALL = ("step-000000", "step-000001", STEP, OTHER, LAST, MAIN)
FAULTS: dict[str, tuple[Fault, str, str]] = {
    "empty manifest": (serve(MAIN, MANIFEST, b""), MAIN, "expected JSON in checkpoints.json"),
    "empty object": (serve(MAIN, MANIFEST, b"{}"), MAIN, "expected format 2"),
    "no manifest": (serve(MAIN, MANIFEST, None), MAIN, "expected a file checkpoints.json; found none"),
    "no rows": (manifest(checkpoints=()), STEP, "step 2 of the schedule in the list"),
    "another format": (manifest(format=1), MAIN, "expected format 2"),
    "activation of main": (change_config(relu), MAIN, "expected config.json of"),
    "activation of main, fitted": (fitted(change_config(relu)), MAIN, "expected the architecture of recipe.json"),
    "activation everywhere, fitted": (
        fitted(change_config(relu, *ALL)),
        MAIN,
        "expected the architecture of recipe.json",
    ),
    "names of classes": (change_config(lambda c: c["labels"].reverse()), MAIN, "expected config.json of"),
    "names of classes, fitted": (
        fitted(change_config(lambda c: c["labels"].reverse(), *ALL)),
        MAIN,
        "expected the labels of the task digits in config.json; found others: 9, 8, 7",
    ),
    "config of a step, fitted": (
        fitted(change_config(lambda c: c["labels"].reverse(), STEP)),
        STEP,
        "expected the same config.json as in main; found two",
    ),
    "step and row removed": (
        drop,
        STEP,
        "expected step 2 of the schedule in the list of checkpoints.json; found no such",
    ),
    "step, row and schedule removed": (
        lambda place: drop(place, schedule=True),
        MAIN,
        "recipe.json in checkpoints.json; found that it lacks 2",
    ),
    "label removed": (
        lambda place: place.remove(STEP),
        STEP,
        "expected a label for this step of the manifest; found none",
    ),
    "step of another run, fitted": (
        fitted(changed_weights(STEP, STEP, 0.1, run="another")),
        STEP,
        "found a header that states run another",
    ),
    "weights of another step, fitted": (
        fitted(other_weights(STEP, OTHER)),
        STEP,
        "expected weights of step-000002; found a header that states step 4",
    ),
    "the same in the manifest": (
        fitted(other_weights(STEP, OTHER)),
        OTHER,
        "expected different weights at every step in checkpoints.json; found those of step-000002 again",
    ),
    "copied branch": (
        lambda place: place.point(STEP, MAIN),
        STEP,
        "expected the weights of step-000002; found the file of step-000006",
    ),
    "copied branch, its commit": (lambda place: place.point(STEP, MAIN), STEP, "as in the manifest; found"),
    "inherited files": (
        lambda place: place.point(STEP, MAIN),
        STEP,
        "expected only the files of the manifest; found README.md",
    ),
    "number in results": (better, MAIN, "expected test accuracy 0.0"),
    "number in results, hash": (better, MAIN, "expected results.json of"),
    "number in results, fitted": (
        fitted(better),
        MAIN,
        "in results.json, as in the last line of metrics.jsonl; found 0.9999",
    ),
    "number in card, fitted": (fitted(other_card), MAIN, "expected README.md as its data renders"),
    "number in card": (other_card, MAIN, "expected README.md of"),
    "number in recipe, fitted": (
        fitted(recipe(lambda r: r["training"].update(lr=0.1))),
        MAIN,
        "expected learning rate 0.05 at step 0, by recipe.json; found 0.0015",
    ),
    "number in recipe": (recipe(lambda r: r["training"].update(lr=0.1)), MAIN, "expected recipe.json of"),
    "seed in recipe, fitted": (fitted(recipe(lambda r: r["seeds"].update(order=7))), MAIN, "expected seeds"),
    "schedule in recipe, fitted": (
        fitted(recipe(lambda r: r["training"].update(steps=8))),
        MAIN,
        "found that it lacks 8",
    ),
    "run in recipe, fitted": (
        fitted(recipe(lambda r: r.update(run="other"))),
        MAIN,
        "as in checkpoints.json; found other",
    ),
    "number in metrics": (other_loss, MAIN, "expected metrics.jsonl of"),
    "number in metrics, fitted": (fitted(other_loss), MAIN, "expected README.md as its data renders"),
    "line of metrics, fitted": (
        fitted(lambda place: edit_text(place, METRICS, '{"step": 3,', '{"step": 4,')),
        MAIN,
        "expected a line for every step from 0 to 6",
    ),
    "no card": (serve(MAIN, CARD, None), MAIN, "expected a file README.md"),
    "no card, fitted": (
        fitted(serve(MAIN, CARD, None)),
        MAIN,
        "expected every file of main in checkpoints.json; found no README.md",
    ),
    "no curve": (
        serve(MAIN, "curves/loss.png", None),
        MAIN,
        "expected a file curves/loss.png, as in the manifest; found none",
    ),
    "no curve, fitted": (fitted(serve(MAIN, "curves/loss.svg", None)), MAIN, "found no curves/loss.svg"),
    "extra pickle": (serve(MAIN, "pytorch_model.bin", b"\x80\x04"), MAIN, "found pytorch_model.bin, a pickle"),
    "extra pickle of a step": (
        serve(STEP, "pytorch_model.bin", b"\x80\x04"),
        STEP,
        "found pytorch_model.bin, a pickle",
    ),
    "extra page": (serve(MAIN, "evil.html", b"<script>"), MAIN, "found evil.html, a web page"),
    "extra page, fitted": (
        fitted(serve(MAIN, "evil.html", b"<script>")),
        MAIN,
        "expected each file that Prisma publishes once",
    ),
    "extra page of a step, fitted": (
        fitted(serve(STEP, "evil.html", b"<script>")),
        STEP,
        "expected the files config.json and model.safetensors in checkpoints.json; found",
    ),
    "step -5": (
        lambda place: relabel(place, -5),
        STEP,
        "expected a step of the schedule in checkpoints.json; found -5",
    ),
    "step 77": (lambda place: relabel(place, 77), STEP, "expected the label step-000077 for step 77"),
    "negative schedule": (
        lambda place: rows(place, lambda m: replace(m, steps=(-5, *m.steps))),
        MAIN,
        "found that it has beside them -5",
    ),
    "duplicate row": (
        lambda place: rows(place, lambda m: replace(m, checkpoints=(*m.checkpoints, m.checkpoints[2]))),
        STEP,
        "expected one row for each step in checkpoints.json; found 2 of 2",
    ),
    "order of rows": (
        lambda place: rows(place, lambda m: replace(m, checkpoints=m.checkpoints[::-1])),
        MAIN,
        "in step order",
    ),
    "unknown label": (lambda place: place.point("pr/1", STEP), "pr/1", "expected a label that is in the manifest"),
    "unknown version": (lambda place: place.point("v1.0", MAIN), "v1.0", "expected a label that is in the manifest"),
    "probe": (darker, MAIN, "expected probe.safetensors of"),
    "being replaced": (
        manifest(replaced_by="r2"),
        MAIN,
        "those of run r2 are taking the place of this one's: publishing was not finished, publish that",
    ),
    "weights of main, fitted": (fitted(other_weights(MAIN, STEP)), MAIN, "step-000006"),
    "weights of main": (other_weights(MAIN, STEP), MAIN, "expected model.safetensors of"),
    "empty revision": (lambda place: place.serve(STEP, {CONFIG: None, WEIGHTS: None}), STEP, "found"),
}


DEEP: dict[str, tuple[Fault, str, str]] = {
    "other values, fitted": (
        fitted(changed_weights(STEP, STEP, 0.1)),
        STEP,
        "as in metrics.jsonl; found weights that have",
    ),
    "other logits, fitted": (
        fitted(changed_weights(STEP, STEP, 0.1)),
        STEP,
        "expected the manifest's logits on the probe images",
    ),
    "equal values under another header, fitted": (
        fitted(changed_weights(STEP, OTHER, step="2")),
        OTHER,
        "expected different weights in each revision; found the same as in step-000002",
    ),
    "values of main under another header, fitted": (
        fitted(changed_weights(STEP, MAIN, step="2")),
        STEP,
        "expected weights of its own; found those of step-000006, the last step",
    ),
    "probe, fitted": (fitted(darker), MAIN, "expected the probe images of the task digits"),
    "transform everywhere, fitted": (
        fitted(change_config(lambda c: c["transform"].update(mean=[0.5]), *ALL)),
        STEP,
        "as in metrics.jsonl; found weights that have",
    ),
}
