"""How fast the app is for a visitor: in Chromium and over HTTP, against the server that `prisma app` starts.

    python -m benchmarks.app [--rounds 5] [--json FILE]

A mouse is digits, trained for a few steps and published with its checkpoints; the large model is ViT-B/16 with random
weights, which changes no speed. Times in the browser are of the page itself: from navigation to the first drawn figure,
from a pointer's move to the end of the redraw, from the slider to the drawn figure of another checkpoint.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import gradio
import httpx
import timm
from playwright.sync_api import Page, sync_playwright
from timm.models import save_for_hf

from benchmarks.timing import Line, arguments, report
from prisma.publish import publish
from prisma.recipes import recipe
from prisma.train import train
from tests.app.visitor import CHROMIUM

VISITORS, REQUESTS = 30, 1_000
HOVER = """(selector) => {
  const canvas = document.querySelector(selector);
  const { left, top, width, height } = canvas.getBoundingClientRect();
  const times = [];
  for (let i = 0; i < 300; i += 1) {
    const [x, y] = [left + width * ((i * 37) % 97) / 97, top + height * ((i * 53) % 89) / 89];
    const began = performance.now();
    canvas.dispatchEvent(new PointerEvent("pointermove", { clientX: x, clientY: y, bubbles: true }));
    times.push(performance.now() - began);
  }
  return times;
}"""
SCRUB = """async (count) => {
  const slider = document.querySelector(".pz-timeline");
  const times = [];
  for (let i = 0; i < count; i += 1) {
    const began = performance.now();
    slider.value = String((i * 3) % (Number(slider.max) + 1));
    slider.dispatchEvent(new Event("input"));
    while (!window.prisma.ready) await new Promise((resolve) => setTimeout(resolve, 1));
    times.push(performance.now() - began);
  }
  return times;
}"""


def p95(values: Sequence[float]) -> float:
    return quantiles(values, n=20)[-1]


@contextmanager
def served(*options: str | Path) -> Iterator[tuple[str, float, int]]:
    """The address that `prisma app` prints, the seconds until it did, and its process."""
    began = time.perf_counter()
    command = [Path(sys.executable).with_name("prisma"), "app", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = server.stdout.readline().split()[-1]
        yield address, time.perf_counter() - began, server.pid
        server.terminate()


def models(folder: Path) -> tuple[Path, Path]:
    """A hub with five mice, and a folder with ViT-B/16."""
    hub = folder / "hub"
    for seed in range(5):
        run = folder / f"run{seed}"
        few = {"steps": "600", "warmup": "4", "init_seed": str(seed)}
        train(recipe("digits").override(few), run, command="prisma train digits", progress=False)
        publish(run, f"lab/digits-{seed}", hub, progress=False)
    vit = folder / "vit-b"
    save_for_hf(timm.create_model("vit_base_patch16_224"), str(vit), safe_serialization=True)
    return hub, vit


def opened(page: Page, url: str) -> float:
    """Seconds from navigation to the first drawn figure, by the page's own clock."""
    page.goto("about:blank")
    page.goto(url)
    page.wait_for_function("window.prisma?.ready", timeout=120_000)
    return int(page.evaluate("document.documentElement.dataset.prismaFigureMs")) / 1000


def weights(page: Page, url: str) -> tuple[float, float]:
    """Megabytes that a page loads: at opening, and when every layer has been looked at."""
    session, loaded = page.context.new_cdp_session(page), [0.0]
    session.send("Network.enable")
    session.send("Network.setCacheDisabled", {"cacheDisabled": True})
    session.on("Network.loadingFinished", lambda event: loaded.append(event["encodedDataLength"]))
    opened(page, url)
    page.wait_for_function("window.prisma.page.figures.attention.scores", timeout=120_000)
    page.wait_for_load_state("networkidle")
    opening = sum(loaded) / 1e6
    page.hover(".pz-view:not([hidden]) .pz-map")
    page.wait_for_function("window.prisma.page.figures.attention.patterns.every(Boolean)", timeout=120_000)
    page.wait_for_load_state("networkidle")
    session.detach()
    return opening, sum(loaded) / 1e6


def in_browser(mouse: str, large: str, rounds: int) -> list[Line]:
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        opened(page, mouse), opened(page, large)  # what the server reads once
        first = {name: median(opened(page, url) for _ in range(rounds)) for name, url in (("m", mouse), ("l", large))}
        opened(page, mouse)
        scrub = p95(page.evaluate(SCRUB, 60)) / 1000
        opening, whole = weights(page, large)
        hover = p95(page.evaluate(HOVER, ".pz-view:not([hidden]) .pz-map")) / 1000
        opened(page, f"{large}?v=1&view=lens")
        lens = p95(page.evaluate(HOVER, ".pz-view:not([hidden]) canvas")) / 1000
        browser.close()
    return [
        seconds("first figure of a mouse", first["m"], 1.5),
        seconds("first figure of ViT-B/16", first["l"], 3.0),
        Line("weight of the page of ViT-B/16", "", 0.0, 0.0, opening, "MB", 4.0),
        Line("the same when every layer has been looked at", "", 0.0, 0.0, whole, "MB", None),
        seconds("attention, redraw on hover, 95th percentile", hover, 0.008),
        seconds("logit lens, redraw on hover, 95th percentile", lens, 0.008),
        seconds("another checkpoint of a mouse, 95th percentile", scrub, 0.15),
    ]


def seconds(what: str, value: float, target: float | None) -> Line:
    return Line(what, "", value, 0.0, value, "s", target)


def visitors(url: str, pid: int) -> list[Line]:
    """Visitors who all come at once, each with what a page asks for."""
    times: list[float] = []
    errors: list[int] = []
    together = threading.Barrier(VISITORS + 1)  # making a client takes longer than what it asks for

    def visit(number: int) -> None:
        with httpx.Client(base_url=f"{url}prisma/", timeout=120) as client:
            together.wait()
            began = time.perf_counter()
            asked: dict[str, str | int] = {"model": f"lab/digits-{number % 5}", "img": str(number % 20)}
            for path, more in (("model", {}), ("answer", {}), *(("view/attention", {"part": i}) for i in range(2))):
                keys = {"model": asked["model"]} if path == "model" else {**asked, **more}
                errors.extend([1] if client.get(path, params=keys).status_code != 200 else [])
            times.append(time.perf_counter() - began)

    threads = [threading.Thread(target=visit, args=(i,)) for i in range(VISITORS)]
    for thread in threads:
        thread.start()
    before = cpu_seconds(pid)
    together.wait()
    for thread in threads:
        thread.join()
    each = (cpu_seconds(pid) - before) / (4 * VISITORS)
    return [
        seconds(f"{VISITORS} visitors at once, 95th percentile", p95(times), 2.0),
        Line("their errors", "", 0.0, 0.0, float(len(errors)), "", 0.0),
        seconds("time of the processors for each of their requests", each, None),
    ]


def cpu_seconds(pid: int) -> float:
    """What a process has used of the processors."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def growth(url: str, pid: int) -> Line:
    """How much the server's memory grows over many mixed requests."""

    def resident() -> int:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    views: list[Callable[[int], tuple[str, dict[str, Any]]]] = [
        lambda i: ("answer", {}),
        lambda i: ("view/attention", {"part": i % 2}),
        lambda i: ("view/lens", {}),
        lambda i: ("view/decompose", {}),
        lambda i: ("view/patching", {}),
    ]
    before = 0
    with httpx.Client(base_url=f"{url}prisma/", timeout=120) as client:
        for i in range(REQUESTS):
            path, more = views[i % len(views)](i)
            client.get(path, params={"model": f"lab/digits-{i % 5}", "img": str(i % 20), "step": 2 ** (i % 9), **more})
            if i == REQUESTS // 5:
                before = resident()
    return Line(f"memory over {REQUESTS:,} requests, growth", "", 0.0, 0.0, resident() / before - 1, "", 0.1)


def main() -> None:
    parser = arguments("How fast the app is for a visitor.")
    parser.set_defaults(rounds=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        hub, vit = models(Path(temporary))
        with served("--hub", hub) as (mouse, starting, pid), served("--model", vit) as (large, _, _):
            lines = [seconds("prisma app prints its address, for a mouse", starting, 5.0)]
            lines += in_browser(mouse, large, args.rounds) + visitors(mouse, pid) + [growth(mouse, pid)]
    report(lines, args, {"timm": timm.__version__, "gradio": gradio.__version__})


if __name__ == "__main__":
    main()
