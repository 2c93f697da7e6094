"""Make docs/app.png, the README's picture: the app on a published mouse, as a visitor sees it.

python tools/screenshot.py hub prisma/digits
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright
from prisma_app.main import serve

OUT = Path(__file__).parents[1] / "docs" / "app.png"
QUERY = "?view=attention&image=3"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def main(hub: Path, model: str) -> None:
    blocks = serve(hub, model, block=False)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 900}, device_scale_factor=1.5)
        page.goto(blocks.local_url + QUERY)
        page.wait_for_function("window.__prisma?.attention")
        for key in (".", "ArrowDown", "ArrowDown", "ArrowRight", "Enter"):
            page.locator("#pz-attention .pz-stage").press(key)
        page.wait_for_function("window.__prisma.attention.pinned")
        page.locator("h1").click()  # takes the keyboard's outline away
        page.evaluate("document.fonts.ready")
        page.screenshot(path=OUT, clip={"x": 0, "y": 0, "width": 1280, "height": 960}, full_page=True)
        browser.close()
    blocks.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
