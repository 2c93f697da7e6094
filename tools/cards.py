"""Train the shipped mice again. Their weights go to `prisma/mice/MOUSE/`, where `prisma.load("mice/MOUSE")` finds them,
and the published files (without weights, images and metrics) to `hub_cards/MOUSE/`.

python tools/cards.py             # every mouse that is shipped already
python tools/cards.py MOUSE ...   # these; a recipe that was not shipped is shipped from now on

Afterwards run python tools/readme.py, which reads the results.
"""

import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from prisma.checkpoint import CONFIG, WEIGHTS
from prisma.publish import publish
from prisma.recipes import recipe
from prisma.repository import MICE, Published
from prisma.train import train

CARDS = Path(__file__).parent.parent / "hub_cards"
KEPT = ("README.md", "results.json", "recipe.json", "config.json", "checkpoints.json")
CURVES = ("curves/loss.png", "curves/accuracy.png", "curves/dynamics.png")


def shipped_mice() -> list[str]:
    """The names of the mice whose weights are in the package."""
    return sorted(folder.name for folder in MICE.iterdir())


def main(names: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        hub, runs = Path(temporary) / "hub", Path(temporary) / "runs"
        for name in names or shipped_mice():
            train(recipe(name), runs / name, device="cpu", command=f"prisma train {name}")
            publish(runs / name, f"prisma/{name}", hub)
            shutil.rmtree(CARDS / name, ignore_errors=True)
            (CARDS / name / "curves").mkdir(parents=True)
            for file in (*KEPT, *CURVES):
                shutil.copyfile(Published(f"prisma/{name}", hub).file(file), CARDS / name / file)
            (MICE / name).mkdir(exist_ok=True)
            for file in (CONFIG, WEIGHTS):
                shutil.copyfile(runs / name / file, MICE / name / file)


if __name__ == "__main__":
    main(sys.argv[1:])
