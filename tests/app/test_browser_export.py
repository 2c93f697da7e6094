"""Figures as files: what is saved is what is shown, and says what it is of."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from prisma_app.library import Library, Scene
from prisma_app.views import VIEWS

import prisma
from prisma.analysis.lens.logit_lens import LogitLens
from tests.app.conftest import DIGITS, GLYPHS
from tests.app.plain import plainly_served
from tests.app.visitor import App


@pytest.fixture(scope="module")
def url(library: Library) -> Iterator[str]:
    with plainly_served(library) as address:
        yield address


def saved(app: App, kind: str, folder: Path) -> Path:
    with app.tab.expect_download() as download:
        app.tab.locator("#pz-figure .pz-view:visible").get_by_role("button", name=kind, exact=True).click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def expect_origin(app: App, origin: dict[str, Any], view: str) -> None:
    state = app.ready()
    assert origin["view"] == view and origin["prisma"] == prisma.__version__
    assert [origin[key] for key in ("model", "rev", "step", "image")] == [
        state[key] for key in ("model", "rev", "step", "img")
    ]
    assert origin["link"] == app.tab.url


def test_numbers_of_the_lens(app: App, scene: Callable[..., Scene], tmp_path: Path) -> None:
    app.open("?v=1&view=lens&img=3&target=4").ready("s.view === 'lens'")
    there = scene(model=DIGITS, img="3")
    expected = prisma.logit_lens(there.loaded.model, there.picture.x[None])
    assert expected.tokens is not None
    probability = expected.tokens[0].softmax(-1).numpy()
    file = np.load(saved(app, "NPZ", tmp_path), allow_pickle=False)
    assert np.array_equal(file["readout"], expected.readout[0].numpy())
    assert file["likeliest"].dtype == np.int32 and np.array_equal(file["likeliest"], probability.argmax(-1))
    assert np.abs(file["map"] - probability[..., 4]).max() < 8e-6
    assert json.loads(str(file["__axes__"]))["map"] == ["stage", "token"]
    origin = json.loads(str(file["__metadata__"]))
    expect_origin(app, origin, "lens")
    assert origin["names"]["class"] == there.subject.labels
    found = json.loads(saved(app, "JSON", tmp_path).read_text())
    expect_origin(app, found["metadata"], "lens")
    assert found["arrays"]["readout"]["axes"] == ["stage", "class"]
    assert np.array_equal(np.array(found["arrays"]["readout"]["values"], np.float32), file["readout"])


def test_pictures(app: App, tmp_path: Path) -> None:
    app.tab.emulate_media(color_scheme="dark")
    app.open(f"?v=1&model={GLYPHS}").ready()
    for view in ("lens", "decompose", "patching", "steering", "units"):
        app.show(view)
        expect_pictures(app, view, tmp_path)


def expect_pictures(app: App, view: str, tmp_path: Path) -> None:
    svg = saved(app, "SVG", tmp_path).read_text()
    root = ElementTree.fromstring(svg)
    name = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{name}svg" and "onerror" not in " ".join(key for e in root.iter() for key in e.attrib)
    origin = json.loads(root.findtext(f"{name}metadata") or "")
    expect_origin(app, origin, view)
    texts = " ".join(element.text or "" for element in root.iter(f"{name}text"))
    assert GLYPHS in texts and f"step {origin['step']}" in texts and f"Prisma {prisma.__version__}" in texts
    data = saved(app, "PNG", tmp_path).read_bytes()
    picture = Image.open(io.BytesIO(data))
    assert picture.size == tuple(2 * round(float(root.attrib[side])) for side in ("width", "height"))
    expect_origin(app, json.loads(picture.text["Description"]), view)  # type: ignore[attr-defined]
    colours = np.asarray(picture.convert("L"))
    assert colours[2, 2] < 60 and colours.std() > 10  # a dark page gives a dark picture, which is not empty


@pytest.mark.parametrize("view", ["lens", "decompose"])
def test_python_of_the_figure_runs_and_gives_its_numbers(app: App, scene: Callable[..., Scene], view: str) -> None:
    app.open(f"?v=1&view={view}&img=2&step=16&target=4").ready(f"s.view === '{view}'")
    app.tab.get_by_role("button", name="Python", exact=True).locator("visible=true").click()
    code = app.tab.locator(".pz-python code:visible").inner_text()
    made: dict[str, Any] = {}
    exec(code, made)
    there = scene(model=DIGITS, img="2", step=16, target=4)
    np.testing.assert_allclose(made["values"].numpy(), np.array(VIEWS[view].values(there)["values"]), atol=1e-5)
    assert code.startswith(f"# {DIGITS} · commit ") and app.tab.url in code.splitlines()[1]
    if view == "lens":
        assert isinstance(made["lens"], LogitLens)
        assert (
            np.abs(made["map_of_class"].flatten().numpy() - np.array(app.figure("[...f.lens.column(4)]"))).max() < 8e-6
        )
