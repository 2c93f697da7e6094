"""What programs can ask the app, through Gradio's own client."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from gradio.utils import get_function_description
from gradio_client import Client
from prisma_app.api import ENDPOINTS, Endpoints
from prisma_app.library import Library, Scene

import prisma
from tests.app.conftest import DIGITS, GLYPHS


@pytest.fixture(scope="module")
def client(url: str) -> Client:
    return Client(url, verbose=False, download_files=False, analytics_enabled=False)


def test_every_endpoint_is_documented_and_has_the_names_of_an_address(client: Client) -> None:
    found = client.view_api(print_info=False, return_format="dict")["named_endpoints"]  # type: ignore[index]
    assert set(found) == {f"/{name}" for name in ENDPOINTS}
    for endpoint in found.values():
        assert len(endpoint["description"]) > 20
        assert all(parameter["parameter_has_default"] for parameter in endpoint["parameters"])
    names = [parameter["parameter_name"] for parameter in found["/patching"]["parameters"]]
    assert {"model", "img", "step", "corrupt", "metric", "into", "site", "target", "against"} <= set(names)


def test_language_models_are_told_what_each_argument_is(library: Library) -> None:
    for name, arguments in ENDPOINTS.items():
        description, found, _ = get_function_description(getattr(Endpoints(lambda: library), name))
        assert list(found) == list(arguments) and all(len(said) > 10 for said in found.values())
        assert "Args:" not in description
    assert found["img"] == "an example by number, sha256:... of an upload, or ink:... of a drawing"


def test_what_is_here(client: Client, scene: Callable[..., Scene]) -> None:
    about, models = client.predict(api_name="/about"), client.predict(api_name="/models")["models"]
    assert about == {"prisma": prisma.__version__, "models": [DIGITS, GLYPHS], "build": None}
    assert [model["model"] for model in models] == [DIGITS, GLYPHS]
    assert models[0]["steps"] == [0, 1, 2, 4, 8, 16, 32, 40] and models[0]["rev"] == scene(model=DIGITS).subject.rev


def test_numbers_are_the_librarys(client: Client, scene: Callable[..., Scene]) -> None:
    there = scene(model=DIGITS, step=8, img="3")
    logits, acts = prisma.record(there.loaded.model, there.picture.x[None], "blocks.1.attn.pattern")
    asked = {"model": DIGITS, "step": 8, "img": "3"}
    answer = client.predict(**asked, api_name="/answer")
    assert torch.allclose(torch.tensor(answer["logits"]), logits[0], atol=1e-6)
    pattern = acts["blocks.1.attn.pattern"][0]
    found = client.predict(**asked, layer=1, api_name="/attention")
    assert found["axes"] == ["head", "query", "key"] and found["step"] == 8 and found["img"] == "3"
    assert torch.allclose(torch.tensor(found["values"]), pattern, atol=1e-6)
    row = client.predict(**asked, layer=1, head=2, token=4, api_name="/attention")
    assert row["axes"] == ["key"] and torch.allclose(torch.tensor(row["values"]), pattern[2, 4], atol=1e-6)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"model": "lab/none"}, "there is no model"),
        ({"step": 3}, "publishes 8 training steps"),
        ({"step": 8.5}, "expected step as a whole number; found 8.5"),
        ({"img": "-1"}, "expected an example from 0 to 19"),
        ({"layer": 9}, "expected a layer from 0 to 1; found 9"),
        ({"head": True}, "expected head as a whole number"),
        ({"model": "<img src=x onerror=alert(1)>"}, "&lt;img"),
    ],
)
def test_mistakes_are_one_sentence(client: Client, asked: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Exception, match=sentence):
        client.predict(**asked, api_name="/attention")
