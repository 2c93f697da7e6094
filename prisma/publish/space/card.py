"""The card of a Space, `README.md`: YAML that the Hub starts the Space by, and what a visitor should know."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prisma import __version__
from prisma.publish.space.code import GRADIO, installed, python_version
from prisma.publish.space.shown import NEEDED
from prisma.repository import Published

SUMMARY = "See how a vision transformer thinks, at any training step"  # the Hub refuses more than 60 characters
TAGS = ("interpretability", "vision-transformer", "prisma")
DEFAULT_HARDWARE = "cpu-basic"


@dataclass(frozen=True)
class Facts:
    """What the card of a Space says."""

    space: str  # OWNER/NAME
    models: Sequence[Published]
    hub: bool  # whether the models are copied into the Space
    static: bool
    hardware: str | None


def render(facts: Facts) -> str:
    """The text of `README.md`. It does not depend on the day or the machine."""
    from huggingface_hub import SpaceCardData

    runtime: dict[str, Any] = {"sdk": "static", "app_file": "index.html"}
    if not facts.static:
        runtime = {
            "sdk": GRADIO,
            "sdk_version": installed(GRADIO),
            "python_version": python_version(facts.hardware),
            "app_file": "app.py",
            "suggested_hardware": facts.hardware or DEFAULT_HARDWARE,
        }
    if not facts.hub:
        runtime["models"] = [mouse.repo for mouse in facts.models]
        if not facts.static:
            files = ",".join(NEEDED)
            runtime["preload_from_hub"] = [f"{mouse.repo} {files} {mouse.commit}" for mouse in facts.models]
    look: dict[str, Any] = {"title": facts.space.split("/")[1], "emoji": "🔺", "colorFrom": "indigo", "colorTo": "gray"}
    more = {"short_description": SUMMARY, "license": "mit", "tags": list(TAGS), "fullWidth": True, "header": "mini"}
    front = SpaceCardData(**{**look, **runtime, **more}).to_yaml()
    return f"---\n{front.strip()}\n---\n\n{_body(facts)}"


def _body(facts: Facts) -> str:
    name = facts.space.split("/")[1]
    where = "from copies in `hub/`" if facts.hub else "from their repositories on the Hub, at these commits"
    how = (
        "Its views were computed when it was made, so it needs no server."
        if facts.static
        else "It computes on the CPU, and needs no secret. Programs can ask it too: its API has `/about` and `/answer`."
    )
    rows = "\n".join(
        f"| {mouse.repo if facts.hub else f'[{mouse.repo}](https://huggingface.co/{mouse.repo}/tree/{mouse.commit})'} "
        f"| `{mouse.commit}` |"
        for mouse in facts.models
    )
    return f"""# {name}

Look inside vision transformers at any step of their training: attention, logit lens and activation patching. This
Space shows published mice {where}:

| mouse | commit |
|---|---|
{rows}

{how}

`prisma space` of Prisma {__version__} made this repository, and replaces its files. `space.json` lists every file with
its SHA-256.
"""
