"""Pictures of the app as a visitor sees it, for docs/app.md and the tutorial on DINOv2.

python tools/screenshot.py mice                       # the mice in the package
python tools/screenshot.py hub prisma/digits          # a published mouse, with its checkpoints
python tools/screenshot.py hub real/dinov2-s14
"""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import sync_playwright
from prisma_app.main import serve

DOCS = Path(__file__).parents[1] / "docs"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@dataclass(frozen=True)
class Picture:
    """A state of the page, and how large a window sees it."""

    out: str
    query: str
    width: int = 1280
    height: int = 1000
    dark: bool = False
    part: str | None = None  # the one element that is shown, by its selector


PAIR = "?v=1&model=mice/sprites&view=patching&img=0"
PICTURES = {
    "mice": (
        Picture("app/attention.png", "?v=1&model=mice/sprites&view=attention&img=0&layer=1&head=2&token=18&pin=1"),
        Picture("app/lens.png", "?v=1&model=mice/sprites&view=lens&img=0&layer=4&token=18&pin=1"),
        Picture("app/patching.png", "?v=1&model=mice/digits&view=patching&img=4&corrupt=9", dark=True),
        Picture("app/estimates.png", f"{PAIR}&estimate=relp", width=1000, part=".pz-detail[aria-label=Estimates]"),
        Picture("app/paths.png", f"{PAIR}&paths=differing", width=1000, part=".pz-detail[aria-label=Paths]"),
        Picture("app/decompose.png", "?v=1&model=mice/sprites&view=decompose&img=0"),
        Picture("app/steering.png", "?v=1&model=mice/sprites&view=steering&img=0", height=1060),
        Picture("app/units.png", "?v=1&model=mice/sprites&view=units&img=3&layer=4&number=149", height=1420),
        Picture("app/phone.png", "?v=1&model=mice/digits&view=attention&img=3", width=390, height=1100),
    ),
    "prisma/digits": (
        Picture("app.png", "?v=1&model=prisma/digits&view=attention&img=3&head=1&token=6&pin=1"),
        Picture("app/training.png", "?v=1&model=prisma/digits&view=training&img=3&step=512", height=1640),
        Picture("app/compare.png", "?v=1&model=prisma/digits&view=attention&img=3&step=64&img2=3&step2=1500"),
    ),
    "real/dinov2-s14": (
        Picture("tutorials/dinov2-app.png", "?v=1&view=attention&img=6&layer=11&head=5&token=101&pin=1", height=1400),
    ),
}


def main(hub: str, model: str | None) -> None:
    blocks = serve(None if hub == "mice" else Path(hub), model, block=False)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        for picture in PICTURES[model or hub]:
            page = browser.new_page(
                viewport={"width": picture.width, "height": picture.height},
                device_scale_factor=1.5,
                color_scheme="dark" if picture.dark else "light",
            )
            page.goto(f"{blocks.local_url}{picture.query}")
            page.wait_for_function("window.prisma?.ready", timeout=120_000)
            page.wait_for_timeout(1500)  # small maps come after the figure
            (DOCS / picture.out).parent.mkdir(exist_ok=True)
            (page.locator(picture.part) if picture.part else page).screenshot(path=DOCS / picture.out)
            page.close()
        browser.close()
    blocks.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
