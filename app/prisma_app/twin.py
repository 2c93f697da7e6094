"""The static twin of the app: the same page over views that are computed when it is made; it needs no server.

Each view is a script that hands its bytes to the page, because a page that is opened from a disk may load scripts and
no data. `fileName` in `prisma/view/browser/assets/source.js` has the names.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from prisma import __version__
from prisma.errors import PrismaError
from prisma.repository import Published
from prisma.view.browser import View
from prisma.view.browser.static import pack_script, page_files
from prisma_app.answers import model_view
from prisma_app.findings import findings_about
from prisma_app.library import Library, Scene
from prisma_app.models import Mouse
from prisma_app.server import sentence, view_of
from prisma_app.state import State
from prisma_app.subject import Subject
from prisma_app.views import VIEWS

DATA = "data/"


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
    names, hub = [mouse.repo for mouse in mice], next((mouse.hub for mouse in mice), None)
    library = Library(names, lambda name: Mouse(next(m for m in mice if m.repo == name)), folder=hub)
    for name, view in (pair for mouse in mice for pair in _views(library, mouse.repo, images, steps)):
        made[f"{DATA}{name}.js"] = pack_script(name, view)
    footer = f"Computed once, with Prisma {__version__}, from the published weights; it needs no server."
    return made | page_files(title, footer, "page", listed(library))


def listed(library: Library) -> dict[str, Any]:
    """What the page is told of its files."""
    names = list(library.names)
    return {"models": names, "findings": findings_about(names), "base": DATA}


def file_name(what: str, **asked: Any) -> str:
    """The name of what the page asks for: `attention/model-lab_2fdigits.step-40.img-3.part-0`.

    Letters that are not small are written as their code, so that no two models have one name, on no file system.
    """
    named = ((key, asked[key]) for key in ("model", "step", "img", "part", "what", "stream") if key in asked)
    return f"{what}/" + ".".join(f"{key}-{_word(str(value))}" for key, value in named)


def _word(text: str) -> str:
    return re.sub("[^a-z0-9-]", lambda found: f"_{ord(found[0]):02x}", text)


def _views(library: Library, name: str, images: int, steps: int) -> Iterator[tuple[str, View]]:
    """The name and the content of every file with numbers of a mouse."""
    subject = library.subject(name, None)
    chosen = [subject.steps[i] for i in spread(len(subject.steps), steps)]
    pictures = [subject.examples()[i] for i in one_of_each(subject.kinds(), images)]
    whole = model_view(Scene(State.of({"model": name}), subject), pictures, chosen)
    yield file_name("model", model=name), whole
    for picture in pictures:
        asked = {"model": name, "img": picture.img}
        yield file_name("training", **asked), _view(library, "view", State.of(asked), "training", chosen)
        for step in chosen:
            here = {"model": name, "step": step, "img": picture.img}
            state = State.of(here)
            yield file_name("answer", **here), _view(library, "answer", state)
            for view in ("attention", "lens", "patching", "decompose", "steering", "latents", "units"):
                yield from _parts(library, view, here)
    for step in chosen:
        yield from _latents(library, {"model": name, "step": step})


def _latents(library: Library, place: dict[str, Any]) -> Iterator[tuple[str, View]]:
    """The list of the latents of a sparse coder of a training step, and all of each, if there is one."""
    now = _view(library, "view", State.of(place), "latents")
    if not now.facts.get("coder"):
        return
    whole = _view(library, "view", State.of(place), "latents", 0)
    for part in range(1 + int(whole.facts.get("width", 0))):
        yield file_name("latents", **place, part=part), _view(library, "view", State.of(place), "latents", part)


def _parts(library: Library, view: str, here: dict[str, Any]) -> Iterator[tuple[str, View]]:
    scene = library.scene(State.of(here))
    parts = VIEWS[view].parts(scene) if hasattr(VIEWS[view], "parts") else [None]
    for part in parts:
        asked = here if part is None else {**here, "part": part}
        yield file_name(view, **asked), _view(library, "view", scene.state, view, part)


def _view(library: Library, what: str, state: State, name: str = "", part: Any = None) -> View:
    """A view, or the reason why this model has none: other views still have."""
    try:
        return _without_place(library.scene(state).subject, view_of(library, what, state, name, part))
    except PrismaError as error:
        return View({"refused": sentence(library.words(error))})


def _without_place(subject: Subject, view: View) -> View:
    """The same view, whose Python does not say where on this machine the folder hub is."""
    hub = subject.published.hub if isinstance(subject, Mouse) else None
    if hub is None or "code" not in view.facts:
        return view
    code = view.facts["code"].replace(repr(str(hub)), repr(hub.name))
    return View({**view.facts, "code": code}, view.arrays)


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
