"""Make a folder of small pictures of many kinds: random crops of the pictures that come with scikit-image.

    python tools/crops.py pictures

The dashboard of docs/sparse.md is of a coder that was trained on them. The same seed gives the same crops.
"""

import sys
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

NAMES = (
    "astronaut", "chelsea", "coffee", "rocket", "brick", "grass", "gravel", "coins", "immunohistochemistry", "retina",
    "hubble_deep_field", "moon", "page", "text", "camera", "cell",
)  # fmt: skip
EACH, SMALLEST, SIDE = 9, 0.5, 256  # crops of each picture; their smallest side, as a share of it; pixels


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.RandomState(0)
    for name in NAMES:
        picture = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
        width, height = picture.size
        for i in range(EACH):
            side = int(min(width, height) * random.uniform(SMALLEST, 1))
            left, top = (int(random.uniform(0, extent - side)) for extent in (width, height))
            crop = picture.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            crop.save(folder / f"{name}-{i}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
