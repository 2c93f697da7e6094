"""Train the shipped mice again. Their weights go to `prisma/mice/MOUSE/`, where `prisma.load("mice/MOUSE")` finds them,
and the published files (without weights, images and metrics) to `hub_cards/MOUSE/`.

python tools/cards.py             # every mouse that is shipped already
python tools/cards.py MOUSE ...   # these; a recipe that was not shipped is shipped from now on
python tools/cards.py --no-weights MOUSE ...   # their cards alone

The card of a mouse without a head, whose features are what it is for, has `linear_probe.json` beside it: what a linear
map reads from them at every checkpoint, the first weights included (`prisma.train.linear_probe`).

Afterwards run python tools/readme.py and tools/mice.py, which read the results.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prisma.checkpoint import CONFIG, WEIGHTS, read_checkpoint
from prisma.data import task
from prisma.files import write_json
from prisma.publish import publish
from prisma.recipes import recipe
from prisma.repository import MICE, Published
from prisma.run_folder import checkpoint_folder, checkpoint_steps
from prisma.train import Recipe, train
from prisma.train.linear_probe import linear_probe

CARDS = Path(__file__).parent.parent / "hub_cards"
KEPT = ("README.md", "results.json", "recipe.json", "config.json", "checkpoints.json")
PROBE = "linear_probe.json"
NO_WEIGHTS = "--no-weights"


def shipped_mice() -> list[str]:
    """The names of the mice whose weights are in the package."""
    return sorted(folder.name for folder in MICE.iterdir())


def probes(run: Path, mouse: Recipe) -> dict[str, Any]:
    """The accuracy of a linear map of the features at every checkpoint of a run, and of the pixels."""
    data, steps = task(mouse.task), checkpoint_steps(mouse.training.steps, mouse.training.checkpoint_every)
    site = f"blocks.{mouse.model.n_layers - 1}.resid_post"
    models = [(step, read_checkpoint(checkpoint_folder(run, step)).model) for step in steps]
    rows = [{"step": step, **asdict(linear_probe(model, data, site))} for step, model in models]
    return {"task": data.name, "site": site, "pixels": asdict(linear_probe(None, data)), "checkpoints": rows}


def main(names: Sequence[str], ship: bool = True) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        hub, runs = Path(temporary) / "hub", Path(temporary) / "runs"
        chosen = names or shipped_mice()
        for name in chosen:  # all before anything is written, so that each states the commit without changes
            train(recipe(name), runs / name, device="cpu", command=f"prisma train {name}")
            publish(runs / name, f"prisma/{name}", hub)
        for name in chosen:
            shutil.rmtree(CARDS / name, ignore_errors=True)
            (CARDS / name / "curves").mkdir(parents=True)
            results = json.loads((runs / name / "results.json").read_text())
            for file in (*KEPT, *(f"curves/{kind}.png" for kind in results["curves"])):
                shutil.copyfile(Published(f"prisma/{name}", hub).file(file), CARDS / name / file)
            if not recipe(name).model.n_classes:
                write_json(CARDS / name / PROBE, probes(runs / name, recipe(name)))
            for file in (CONFIG, WEIGHTS) if ship else ():
                (MICE / name).mkdir(exist_ok=True)
                shutil.copyfile(runs / name / file, MICE / name / file)


if __name__ == "__main__":
    main([word for word in sys.argv[1:] if word != NO_WEIGHTS], NO_WEIGHTS not in sys.argv)
