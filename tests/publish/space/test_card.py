"""The card of a Space: its YAML, as the Hub documents it."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from prisma.publish.space.card import SUMMARY, Facts, render
from prisma.repository import Published

COMMIT = "1234567890123456789012345678901234567890"  # digits alone, which YAML could take for a number
MICE = [Published("lab/a", None, COMMIT), Published("lab/b", None, COMMIT[::-1])]


def front(facts: Facts) -> dict[str, Any]:
    _, text, _ = render(facts).split("---\n", 2)
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def test_a_gradio_space_of_mice_on_the_hub() -> None:
    found = front(Facts("lab/explorer", MICE, False, False, None))
    assert (found["title"], found["license"], found["app_file"]) == ("explorer", "mit", "app.py")
    assert (found["sdk"], found["sdk_version"]) == ("gradio", version("gradio"))
    assert found["python_version"].startswith("3.")  # text: as a number, 3.10 would be 3.1
    assert (found["suggested_hardware"], found["models"]) == ("cpu-basic", ["lab/a", "lab/b"])
    files = "config.json,model.safetensors,checkpoints.json,probe.safetensors"
    assert found["preload_from_hub"] == [f"lab/a {files} {COMMIT}", f"lab/b {files} {COMMIT[::-1]}"]
    assert len(SUMMARY) <= 60 and found["short_description"] == SUMMARY
    assert {"emoji", "colorFrom", "colorTo", "tags"} <= set(found)


def test_copied_mice_are_no_models_of_the_hub() -> None:
    found = front(Facts("lab/explorer", [Published("lab/a", Path("hub"), COMMIT)], True, False, "cpu-upgrade"))
    assert "models" not in found and "preload_from_hub" not in found
    assert found["suggested_hardware"] == "cpu-upgrade"


def test_a_static_space_runs_nothing() -> None:
    found = front(Facts("lab/explorer", MICE, False, True, None))
    assert (found["sdk"], found["app_file"], found["models"]) == ("static", "index.html", ["lab/a", "lab/b"])
    assert not {"sdk_version", "python_version", "suggested_hardware", "preload_from_hub"} & set(found)


def test_the_body_names_each_commit() -> None:
    text = render(Facts("lab/explorer", MICE, False, False, None))
    assert f"[lab/a](https://huggingface.co/lab/a/tree/{COMMIT}) | `{COMMIT}` |" in text
