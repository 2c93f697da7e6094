"""Latents: what a sparse coder finds in the image, what each of its latents is active on, and the answer without one.

Part 0 is the list of all latents; part 1 + j is all of latent j. They are computed on the probe of the mouse.
"""

import re
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prisma.errors import PrismaError, quoted
from prisma.runs import record, run
from prisma.sparse.activations import roles_of, rows_of, token_places
from prisma.sparse.belonging import hash_of_model, stated_hash
from prisma.sparse.inputs import tokens_of
from prisma.sparse.latent_views import index_of, named, part_of
from prisma.sparse.latents import Latents, latents
from prisma.sparse.splicing import Splice
from prisma.view.browser import View, pictures
from prisma.view.browser.payload import levels
from prisma_app.answers import answer
from prisma_app.cache import Cache
from prisma_app.coders import PublishedCoder, coders_of
from prisma_app.library import Scene
from prisma_app.pictures import transform_of
from prisma_app.views.shared import code_head, nested, program

LOOKED_AT, RANKS, SHOWN, CLASSES = 128, 8, 12, 6  # images; of each latent; latents of an image; answers
SIDE = 96  # pixels of the images that are looked at
KEPT: Cache[Latents] = Cache(
    256 * 2**20, lambda found: sum(x.numel() * x.element_size() for x in found.arrays.values())
)
"""Latents on the probe, by model, step, coder and their commits."""
_CHANGE = re.compile(r"(scale|steer):(-?[0-9]{1,4}(?:\.[0-9]{1,4})?)")
NONE = (
    "There is no sparse coder of this model here. prisma sparse train makes one, and prisma publish puts it where the "
    "model is."
)


@dataclass(frozen=True)
class Chosen:
    """The coder of a scene, and what it finds in the scene's image."""

    found: PublishedCoder
    z: Tensor  # [token, latent]
    tokens: list[int]  # the indices of the tokens that it reads
    order: list[int]  # its latents in this image, the strongest first
    at: int  # the latent that is looked at


def view(scene: Scene, part: int | None = None) -> View:
    """What the coder finds in the image, and the answer as it is and with the latent changed.

    Raises:
        PrismaError: no such coder, latent or change, or a coder of other weights than the model's.
    """
    known = coders_of(scene.subject)
    if part is not None:
        return _part(scene, _coder(scene, known), part)
    offered = [{"name": one.name, "step": one.step, "says": f"{one.name}, of step {one.step:,}"} for one in known]
    image = {"image": scene.subject.shown(scene.picture.x[None])}
    there = sorted({one.step for one in known})
    if not known or (scene.state.coder is None and scene.step not in there):
        steps = ", ".join(f"{step:,}" for step in there)
        says = f"There are sparse coders of this model after the steps {steps}, and none of step {scene.step:,}."
        nothing = {"coders": offered, "coder": None, "says": says if known else NONE, "latents": [], "before": []}
        return View({**nothing, "after": None, "state": scene.resolved()}, image)
    chosen = _chosen(scene, _coder(scene, known))
    strength = chosen.z.abs().amax(0)
    config, roles = chosen.found.coder.config, _roles(scene, chosen)
    shares = chosen.z[:, chosen.order].abs().T / strength[chosen.order, None].clamp_min(1e-30)
    before, after, order = _answers(scene, chosen)
    labels = scene.subject.labels
    facts: dict[str, Any] = {
        "coders": offered,
        "coder": chosen.found.name,
        "says": f"{config.width:,} latents of {chosen.found.coder.site} ({config.kind}), of which "
        f"{int((strength > 0).sum())} are active in this image.",
        "latents": [[j, float(strength[j])] for j in chosen.order],
        "prefix": sum(role != "patches" for role in roles),
        "grid": list(scene.config.grid[1:]) if "patches" in roles else None,
        "before": [[labels[i], float(before[i])] for i in order],
        "after": None if after is None else [[labels[i], float(after[i])] for i in order],
        "state": scene.resolved(coder=chosen.found.name, latent=chosen.at, change=scene.state.change or None),
        "code": code(scene),
    }
    return View(facts, {**image, "maps": levels(shares)})


def values(scene: Scene) -> dict[str, Any]:
    """How active each latent is at its strongest token [latent], and the logits with and without a change."""
    chosen = _chosen(scene, _coder(scene, coders_of(scene.subject)))
    after = _changed(scene, chosen)
    return nested(
        scene, ["latent"], chosen.z.abs().amax(0), coder=chosen.found.name, latent=chosen.at,
        change=scene.state.change, labels=scene.subject.labels, logits=answer(scene).tolist(),
        changed=None if after is None else after.tolist(),
    )  # fmt: skip


def code(scene: Scene) -> str:
    """The Python that computes the code of the image, and the logits with the change."""
    chosen = _chosen(scene, _coder(scene, coders_of(scene.subject)))
    published, site = chosen.found.published, chosen.found.coder.site
    read = f"coder = prisma.load_coder({published.repo!r}, revision={published.commit!r})\n"
    if published.hub is not None:
        there = f"Published({published.repo!r}, Path({str(published.hub)!r}), commit={published.commit!r})"
        read = f"there = {there}\ncoder = prisma.load_coder(there.file('cfg.json').parent)\n"
    body = (
        f"{code_head(scene)}{read}"
        f"logits, acts = prisma.record(loaded.model, x, {site!r})\n"
        f"z = coder.encode(acts[{site!r}])  # how active each latent is\n"
    )
    if change := _CHANGE.fullmatch(scene.state.change):
        edit = f"Splice(coder).{change[1]}({chosen.at}, {float(change[2]):g}){_at(chosen)}"
        body += f"changed = prisma.run(loaded.model, x, {{{site!r}: {edit}}})\n"
    return program(body, ["from prisma.sparse import Splice"] if change else [])


def _at(chosen: Chosen) -> str:
    return "" if chosen.tokens == [-1] else f".at(token={chosen.tokens})"


def _coder(scene: Scene, known: Any) -> PublishedCoder:
    """The coder that a state names; by default the first of its training step."""
    asked = scene.state.coder
    fitting = [one for one in known if one.name == asked or (asked is None and one.step == scene.step)]
    if not fitting:
        names = ", ".join(one.name for one in known) or "none"
        raise PrismaError(f"expected a sparse coder of {scene.subject.name}, {names}; found {quoted(asked, 60)}")
    one: PublishedCoder = fitting[0]
    if stated_hash(one.coder) != hash_of_model(scene.loaded.model):
        raise PrismaError(
            f"expected training step {one.step}, of whose weights {one.name} is; found step {scene.step}: choose that "
            "step"
        )
    return one


def _chosen(scene: Scene, found: PublishedCoder) -> Chosen:
    coder = found.coder
    if len(coder.config.sites) > 1 or coder.config.target:
        raise PrismaError(f"expected a coder of one site; found {coder!r}")
    site = coder.site
    tokens = token_places(scene.loaded.model, site, tokens_of(coder))
    with torch.no_grad():
        _, acts = record(scene.loaded.model, scene.picture.x[None], site, stop=True)
        z = coder.encode(rows_of(acts[site], site)[0, tokens])
    strength = z.abs().amax(0)
    order = strength.argsort(descending=True, stable=True)[:SHOWN].tolist()
    order = [j for j in order if strength[j] > 0]
    default = order[0] if order else 0
    at = scene.index("latent", scene.state.latent, coder.config.width, default)
    return Chosen(found, z, tokens if roles_of(scene.loaded.model, site) != ("pooled",) else [-1], order, at)


def _roles(scene: Scene, chosen: Chosen) -> list[str]:
    roles = roles_of(scene.loaded.model, chosen.found.coder.site)
    return [roles[i] for i in chosen.tokens]


def _changed(scene: Scene, chosen: Chosen) -> Tensor | None:
    """Logits [class] with the latent changed as the state says; None if it says nothing."""
    if not scene.state.change:
        return None
    found = _CHANGE.fullmatch(scene.state.change)
    if not found:
        raise PrismaError(
            "expected a change as scale:2 or steer:4, with numbers below 10,000; found "
            f"{quoted(scene.state.change, 40)}"
        )
    splice = Splice(chosen.found.coder)
    edit: Any = (splice.scale if found[1] == "scale" else splice.steer)(chosen.at, float(found[2]))
    if chosen.tokens != [-1]:
        edit = edit.at(token=chosen.tokens)
    with torch.no_grad():
        return run(scene.loaded.model, scene.picture.x[None], {chosen.found.coder.site: edit})[0]


def _answers(scene: Scene, chosen: Chosen) -> tuple[Tensor, Tensor | None, list[int]]:
    """Probabilities as they are, and with the change; and the classes that are likeliest in one of them."""
    before, logits = answer(scene).softmax(-1), _changed(scene, chosen)
    after = None if logits is None else logits.softmax(-1)
    most = before if after is None else torch.maximum(before, after)
    return before, after, most.argsort(descending=True)[:CLASSES].tolist()


def _part(scene: Scene, found: PublishedCoder, part: int) -> View:
    """The list of all latents, or all of one."""
    subject, coder = scene.subject, found.coder
    probe = subject.probe()
    x = probe[0][:LOOKED_AT] if probe else torch.stack([example.x for example in subject.examples()])
    key = (subject.name, subject.rev, scene.step, found.name, found.published.commit)
    computed = KEPT.get(key, lambda: latents(coder, scene.loaded.model, x, top=RANKS, effect_images=2))
    outputs, classes = named(subject.labels, computed.effect), named(subject.labels, computed.classes)
    if part:
        j = scene.index("latent", part - 1, coder.config.width)
        return part_of(computed, range(j, j + 1), outputs, classes, [f"test image {i}" for i in range(len(x))])
    facts, arrays = index_of(computed, coder, found.name, outputs, classes, {})
    shown = transform_of(subject.final).pixels(x)
    if (scale := SIDE / max(shown.shape[2:])) < 1:
        shown = F.interpolate(shown, [round(side * scale) for side in shown.shape[2:]], mode="area")
    return View({**facts, "state": scene.resolved(coder=found.name)}, {**arrays, "pictures": pictures(shown)})
