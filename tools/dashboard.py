"""Pictures of the dashboard of a coder, for docs/sparse.md.

    make real
    python tools/crops.py pictures
    prisma sparse train --model real/dinov2-s14 --images pictures --site blocks.9.resid_post --tokens patches \
        --kind topk --k 32 --width 3072 --steps 400 --lr 1e-3 --out coder
    prisma sparse show coder --model real/dinov2-s14 --images pictures --effect-images 1 \
        --title "Latents of DINOv2-S/14 after block 9" --out dashboard
    python tools/dashboard.py dashboard
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

DOCS = Path(__file__).parents[1] / "docs"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PICTURES = {  # name: (hash of the address, width, height, dark)
    "latents": ("#sort=strength", 1280, 1000, False),
    "latent": ("#latent={latent}", 1280, 900, True),
}


def main(folder: Path, latent: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        for name, (place, width, height, dark) in PICTURES.items():
            page = browser.new_page(
                viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
            )
            page.goto(f"{(folder.resolve() / 'index.html').as_uri()}{place.format(latent=latent)}")
            page.wait_for_function("window.prisma?.ready", timeout=300_000)
            page.wait_for_timeout(3000)  # images come after the figures
            (DOCS / "sparse").mkdir(exist_ok=True)
            page.screenshot(path=DOCS / "sparse" / f"{name}.png")
            page.close()
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "1034")
