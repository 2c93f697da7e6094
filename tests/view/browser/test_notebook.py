"""A result in a notebook: complete in itself, several in one page, in bounds, and never read as HTML."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from playwright.sync_api import Page, sync_playwright

import prisma
from prisma.analysis.result import Result
from prisma.config import ViTConfig
from prisma.view.browser.notebook import MOST_BYTES, maps_view
from prisma.vit import ViT
from tests.app.unpack import unpack
from tests.app.visitor import CHROMIUM

HOSTILE = "<img src=x onerror='window.harmed=1'>${window.harmed=1}</script><script>window.harmed=1</script>"
OF_JUPYTERLAB = """
.jp-RenderedHTMLCommon ol:not(.list-inline) { padding-left: 2em; }
.jp-RenderedHTMLCommon ol { list-style: decimal; }
:not(.jp-RenderedMarkdown).jp-RenderedHTMLCommon th { text-align: right; }
"""  # some of what it writes for lists and tables in an output
IMAGES = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model() -> ViT:
    torch.manual_seed(0)
    config = ViTConfig(image_size=8, patch_size=4, channels=1, n_layers=2, n_heads=2, d_model=16, d_mlp=32, n_classes=4)
    return ViT(config)


@pytest.fixture(scope="module")
def results(model: ViT) -> list[Result]:
    metric = prisma.LogitDiff(0, 1)
    rollout = prisma.rollout(model, IMAGES)
    return [
        prisma.logit_lens(model, IMAGES),
        prisma.direct_logit_attribution(model, IMAGES, metric),
        replace(rollout, metadata={**rollout.metadata, "analysis": HOSTILE}),
        prisma.activation_patching(model, IMAGES[:1], IMAGES[1:2], "attn.z", metric),
        prisma.logit_lens(model, IMAGES, tokens=False),
    ]


@pytest.fixture(scope="module")
def page(results: list[Result], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """Every result, the first one twice, in one page without a server."""
    outputs = [result._repr_html_() for result in (*results, results[0])]
    file = tmp_path_factory.mktemp("notebook") / "page.html"
    inside = f'<main class="jp-RenderedHTMLCommon">{"".join(outputs)}</main>'
    file.write_text(f"<!doctype html><meta charset=utf-8><style>{OF_JUPYTERLAB}</style><body>{inside}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page()
        complaints: list[str] = []
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        tab.goto(f"file://{file}")
        tab.wait_for_function(f"document.querySelectorAll('.pz-notebook[data-ready]').length === {len(outputs)}")
        yield tab
        assert complaints == []
        browser.close()


def test_numbers_are_the_results(page: Page, results: list[Result]) -> None:
    lens, parts, _, patching, _ = results
    words = page.locator(".pz-notebook").evaluate_all("all => all.map((e) => e.querySelector('.pz-words').textContent)")
    first = lens.arrays["tokens"][0, -1, 0].softmax(-1)
    assert f"class {int(first.argmax())} ({first.max():.3f})" in words[0] and words[0] == words[5]
    said = page.locator(".pz-notebook").nth(1).locator(".pz-answer-line").inner_text()
    assert said.endswith(f"LogitDiff(correct=0, wrong=1) is {parts.arrays['value'][0]:.3f}.")
    assert words[3] == f"effect, layer 0, head 0: {patching.arrays['effect'][0, 0]:.3f}."


def test_another_image_is_chosen_in_one_output_alone(page: Page, results: list[Result]) -> None:
    lens = page.locator(".pz-notebook").first
    before = page.locator(".pz-notebook").last.inner_text()
    lens.locator("select").first.select_option("2")
    first = results[0].arrays["tokens"][2, -1, 0].softmax(-1)
    page.wait_for_function(
        "text => document.querySelector('.pz-words').textContent.includes(text)",
        arg=f"class {int(first.argmax())} ({first.max():.3f})",
    )
    assert page.locator(".pz-notebook").last.inner_text() == before


def test_keys_read_a_map(page: Page, results: list[Result]) -> None:
    maps = page.locator(".pz-notebook").nth(3)
    maps.get_by_role("application").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    value = results[3].arrays["effect"][1, 1]
    assert maps.locator(".pz-words").inner_text() == f"effect, layer 1, head 1: {value:.3f}."
    maps.get_by_label("Array").select_option("stderr")  # of one pair: there is none
    page.wait_for_function("document.querySelectorAll('.pz-words')[3].textContent.endsWith('none.')")


def test_strings_are_text(page: Page, results: list[Result]) -> None:
    assert HOSTILE not in results[2]._repr_html_() and page.evaluate("window.harmed") is None
    assert page.locator(".pz-output-title").nth(2).inner_text().startswith("<img src=x")


def test_an_output_is_bounded() -> None:
    large = {"big": torch.randn(40, 400, 400), "small": torch.ones(2)}
    facts, arrays = unpack(
        maps_view(large, {"big": ("image", "query", "key"), "small": ("head",)}, {}, {"analysis": "x" * 9999}).pack()
    )
    assert arrays["big"].shape == (3, 400, 400) and torch.equal(arrays["big"].float(), large["big"][:3])
    assert facts["said"] == ["big has the first 3 of 40 images."] and len(facts["settings"]) < 3000
    assert sum(4 * x.numel() for x in arrays.values()) <= MOST_BYTES
    facts, arrays = unpack(maps_view({"one": torch.randn(900, 900)}, {"one": ("row", "column")}, {}, {}).pack())
    assert not arrays and facts["said"] == ["one [900, 900] is left out: it is too large for a notebook, or empty."]


def test_dark_pages_have_dark_outputs(page: Page) -> None:
    colour = "getComputedStyle(document.querySelector('.pz-notebook')).backgroundColor"
    assert page.evaluate(colour) == "rgb(255, 255, 255)"
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(colour) == "rgb(19, 22, 28)"
    page.emulate_media(color_scheme="light")


def test_keys_are_the_figures_and_not_the_notebooks(page: Page) -> None:
    """JupyterLab reads keys at the document, before the figure, unless the focused element says that they are its."""
    page.evaluate(
        """window.read = [];
        document.addEventListener("keydown", (e) => {
          if (!e.target.hasAttribute("data-lm-suppress-shortcuts")) window.read.push(e.key);
        }, true)"""
    )
    page.locator(".pz-notebook").nth(3).get_by_role("application").focus()
    for key in ("d", "d", "0", "ArrowDown", "Control+s", "a"):
        page.keyboard.press(key)
    assert page.evaluate("window.read") == ["Control", "s"]
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("d")
    assert page.evaluate("window.read") == ["Control", "s", "d"]


def test_lists_and_tables_are_the_viewers(page: Page) -> None:
    def computed(selector: str) -> list[str]:
        found: list[str] = page.evaluate(
            """selector => {
              const { paddingLeft, listStyleType, textAlign } = getComputedStyle(document.querySelector(selector));
              return [paddingLeft, listStyleType, textAlign];
            }""",
            selector,
        )
        return found

    assert computed(".pz-notebook ol")[:2] == ["0px", "none"]
    page.locator(".pz-notebook").nth(3).get_by_text("Show as table").click()
    page.locator(".pz-notebook th").first.wait_for()
    assert computed(".pz-notebook th")[2] == "left"
