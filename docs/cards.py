"""Train our mice, publish them, and keep what `main` serves (but weights, images and metrics) in `hub_cards/MOUSE/`.

python docs/cards.py    # then python docs/readme.py, which reads the results
"""

import shutil
import tempfile
from pathlib import Path

from prisma.publish import publish
from prisma.recipes import RECIPES
from prisma.repository import Published
from prisma.train import train

CARDS = Path(__file__).parent.parent / "hub_cards"
KEPT = ("README.md", "results.json", "recipe.json", "config.json", "checkpoints.json")
CURVES = ("curves/loss.png", "curves/accuracy.png")


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        hub, runs = Path(temporary) / "hub", Path(temporary) / "runs"
        for name, recipe in RECIPES.items():
            train(recipe, runs / name, device="cpu", command=f"prisma train {name}")
            publish(runs / name, f"prisma/{name}", hub)
            shutil.rmtree(CARDS / name, ignore_errors=True)
            (CARDS / name / "curves").mkdir(parents=True)
            for file in (*KEPT, *CURVES):
                shutil.copyfile(Published(f"prisma/{name}", hub).file(file), CARDS / name / file)


if __name__ == "__main__":
    main()
