"""Pictures of the app as a visitor sees it: docs/app.png, on a published mouse, and one of the DINOv2 tutorial.

python tools/screenshot.py hub prisma/digits
python tools/screenshot.py hub real/dinov2-s14
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright
from prisma_app.main import serve

DOCS = Path(__file__).parents[1] / "docs"
PICTURES = {  # model -> the picture, the page's address, keys for the head and the patch, and its height
    "prisma/digits": (DOCS / "app.png", "?view=attention&image=3", ".", 960),
    "real/dinov2-s14": (DOCS / "tutorials" / "dinov2-app.png", "?view=attention&image=6", "]" * 11 + "." * 5, 1476),
}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def main(hub: Path, model: str) -> None:
    out, query, keys, height = PICTURES[model]
    blocks = serve(hub, model, block=False)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 900}, device_scale_factor=1.5)
        page.goto(blocks.local_url + query)
        page.wait_for_function("window.__prisma?.attention")
        for key in (*keys, "ArrowDown", "ArrowDown", "ArrowRight", "Enter"):
            page.locator("#pz-attention .pz-stage").press(key)
        page.wait_for_function("window.__prisma.attention.pinned")
        page.locator("h1").click()  # takes the keyboard's outline away
        page.evaluate("document.fonts.ready")
        page.screenshot(path=out, clip={"x": 0, "y": 0, "width": 1280, "height": height}, full_page=True)
        browser.close()
    blocks.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
