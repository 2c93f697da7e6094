"""The static twin of the app: a page that needs no server, over views that are computed when it is made.

It shows what the app's tabs show, with the same viewers, of some images at some training steps, and the curves of
training. Its files work from a disk too, where a page may load scripts but no data: so arrays are base64 in scripts.
"""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

import torch

from prisma import __version__
from prisma.errors import PrismaError
from prisma.repository import Published
from prisma.run_folder import METRICS, read_metrics, revision_of
from prisma.view.browser import VIEWERS, Packed, View, script, style
from prisma_app.changes import with_model, with_picture
from prisma_app.models import Mouse
from prisma_app.panel import refused
from prisma_app.session import Session
from prisma_app.subject import pixels
from prisma_app.tabs import TABS
from prisma_app.theme import HEADER

POINTS = 300  # of one curve: as many as a screen shows apart
CURVES = {
    "name": "training",
    "title": "Training",
    "help": "Loss and accuracy over training, as the run logged them. The mark is the chosen training step.",
    "viewer": "curves",
}
CHARTS: Mapping[str, Mapping[str, str]] = {  # title -> key in metrics.jsonl -> name of the curve
    "Loss": {"train_loss": "train loss", "test_loss": "test loss"},
    "Accuracy": {"train_accuracy": "train accuracy", "test_accuracy": "test accuracy"},
    "Learning rate": {"lr": "learning rate"},
}
DATA = "data"


def files_of(mice: Sequence[Published], title: str, images: int, steps: int) -> dict[str, bytes]:
    """Name -> content of all files of the page.

    Args:
        mice: what it shows, each at a commit.
        images: how many test images of each, of as many classes as possible.
        steps: how many training steps of each; the first and the last are among them.

    Raises:
        PrismaError: a mouse cannot be read, or is not one that the app shows.
    """
    made: dict[str, bytes] = {}
    models = []
    for number, published in enumerate(mice):
        index, views = _model(published, f"{DATA}/{number}", images, steps)
        models.append(index)
        made |= views
    tabs = [{"name": n, "title": t.TITLE, "help": t.HELP, "viewer": t.VIEWER} for n, t in TABS.items()]
    made[f"{DATA}/index.js"] = f"const INDEX = {_json({'tabs': [*tabs, CURVES], 'models': models})};\n".encode()
    page = Template(_asset("twin.html")).substitute(title=escape(title), header=HEADER, version=__version__)
    made["index.html"] = page.encode()
    made["twin.css"] = f"{_asset('twin.css')}\n{style()}".encode()
    made["twin.js"] = _asset("twin.js").encode()
    made["viewers.js"] = script(*VIEWERS).encode()
    return made


def _asset(name: str) -> str:
    return (files("prisma_app") / "assets" / name).read_text("utf-8")


def _model(published: Published, folder: str, images: int, steps: int) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The entry of a mouse in the index, and the scripts of its views."""
    mouse = Mouse(published)
    checkpoints = spread(len(mouse.steps), steps)
    pictures = [mouse.example(i) for i in one_of_each(mouse.kinds(), images)]
    first = with_model(mouse)
    views: dict[str, bytes] = {}
    with torch.no_grad():
        for index in checkpoints:
            where = f"{folder}/{revision_of(mouse.steps[index])}"
            for picture in pictures:
                session = replace(with_picture(first, picture), index=index)
                name = f"{where}/{picture.example}.js"
                shown = {tab: _packed(_view(replace(session, tab=tab))) for tab in TABS}
                views[name] = f"VIEW({_json(name)}, {_json(shown)});\n".encode()
        thumbnails = pixels(mouse.final, torch.stack([picture.x for picture in pictures]))
    entry = {
        "name": mouse.name,
        "commit": published.commit,
        "steps": [{"step": mouse.steps[i], "folder": f"{folder}/{revision_of(mouse.steps[i])}"} for i in checkpoints],
        "images": [{"number": picture.example, "caption": picture.caption} for picture in pictures],
        "thumbnails": _array(thumbnails),
        "charts": list(_charts(published)),
    }
    return entry, views


def _view(session: Session) -> View:
    """The view of a session's tab, or the reason why it cannot show this model."""
    try:
        return TABS[session.tab].view(session)
    except PrismaError as error:
        return refused(error)


def _packed(view: View) -> dict[str, Any]:
    return {"facts": view.facts, "arrays": {name: _array(array) for name, array in view.arrays.items()}}


def _array(array: Packed) -> dict[str, Any]:
    url = f"data:application/gzip;base64,{base64.b64encode(array.data).decode()}"
    return {"type": array.type, "shape": array.shape, "url": url}


def _json(value: Any) -> str:
    """As JavaScript: ASCII, so that no label can end a string or a line."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _charts(published: Published) -> Iterator[dict[str, Any]]:
    lines = read_metrics(published.file(METRICS))
    for title, names in CHARTS.items():
        curves = [curve for key, name in names.items() if (curve := _curve(lines, key, name))["steps"]]
        if curves:
            yield {"title": title, "curves": curves}


def _curve(lines: Sequence[Mapping[str, Any]], key: str, name: str) -> dict[str, Any]:
    points = [(line["step"], line[key]) for line in lines if isinstance(line.get(key), int | float)]
    kept = [points[i] for i in spread(len(points), POINTS)]
    return {"name": name, "steps": [step for step, _ in kept], "values": [y for _, y in kept]}


def spread(count: int, n: int) -> list[int]:
    """At most `n` of the indices 0 ... count - 1, evenly spread; the last is among them, and the first if `n` > 1."""
    if count <= n:
        return list(range(count))
    return [count - 1] if n == 1 else [round(i * (count - 1) / (n - 1)) for i in range(n)]


def one_of_each(kinds: Sequence[Any], n: int) -> list[int]:
    """Indices of at most `n` examples, of as many kinds as possible, in their order."""
    seen: dict[Any, int] = {}
    rounds = []
    for index, kind in enumerate(kinds):
        rounds.append((seen.get(kind, 0), index))  # how many of this kind come before
        seen[kind] = seen.get(kind, 0) + 1
    return sorted(index for _, index in sorted(rounds)[:n])
