"""Pictures of the dashboard of a coder, for docs/sparse.md.

    make real
    python tools/crops.py pictures
    prisma sparse train --model real/dinov2-s14 --images pictures --site blocks.9.resid_post --tokens patches \
        --kind topk --k 32 --width 3072 --steps 400 --lr 1e-3 --out coder
    prisma sparse show coder --model real/dinov2-s14 --images pictures --effect-images 1 \
        --title "Latents of DINOv2-S/14 after block 9" --out dashboard
    python -m tools.dashboard dashboard coder   the pictures, and the figures that the page states of the coder
"""

import json
import shutil
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

from playwright.sync_api import sync_playwright

DOCS = Path(__file__).parents[1] / "docs"
PAGE, NUMBERS = DOCS / "sparse.md", DOCS / "sparse" / "coder.json"
BEGIN, END = "<!-- coder -->", "<!-- /coder -->"
SHOWN = "1034"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PICTURES = {  # name: (hash of the address, width, height, dark)
    "latents": ("#sort=strength", 1280, 1000, False),
    "latent": ("#latent={latent}", 1280, 900, True),
}


def figures_of(coder: Path) -> dict[str, float]:
    """What the training states of a coder, to three digits."""
    record = json.loads((coder / "cfg.json").read_text())["metadata"]["prisma"]
    found = {**record["config"], **record["training"]}
    names = ("width", "k", "steps", "images", "held_out", "fvu", "fvu_held_out", "dead")
    return {name: float(f"{found[name]:.3g}") if isinstance(found[name], float) else found[name] for name in names}


def sentence(found: Mapping[str, float]) -> str:
    """The figures in words."""
    return textwrap.fill(
        f"This one is of the real DINOv2-S/14 after block 9: {found['width']:,} latents, {found['k']} of them active "
        f"on each patch, trained in {found['steps']} steps on {found['images']} crops of the pictures that come with "
        f"scikit-image (`tools/dashboard.py` says how it is made again). Its FVU is {found['fvu']:g} on the crops that "
        f"it was trained on, and {found['fvu_held_out']:g} on the {100 * found['held_out']:g} % that were held out, "
        f"which show parts of the same pictures; {100 * found['dead']:.2g} % of the latents died in the training.",
        width=120,
    )


def page(text: str, found: Mapping[str, float]) -> str:
    """docs/sparse.md with these figures."""
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    return f"{text[:begin]}\n{sentence(found)}\n{text[end:]}"


def main(folder: Path, coder: Path, latent: str) -> None:
    NUMBERS.parent.mkdir(exist_ok=True)
    NUMBERS.write_text(json.dumps(figures_of(coder), indent=2) + "\n")
    PAGE.write_text(page(PAGE.read_text(), json.loads(NUMBERS.read_text())))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        for name, (place, width, height, dark) in PICTURES.items():
            tab = browser.new_page(
                viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
            )
            tab.goto(f"{(folder.resolve() / 'index.html').as_uri()}{place.format(latent=latent)}")
            tab.wait_for_function("window.prisma?.ready", timeout=300_000)
            tab.wait_for_timeout(3000)  # images come after the figures
            tab.screenshot(path=DOCS / "sparse" / f"{name}.png")
            tab.close()
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else SHOWN)
