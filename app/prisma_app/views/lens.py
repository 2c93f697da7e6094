"""The logit lens: what the model would answer if it stopped after each layer, for the image and each token alone."""

from typing import Any

from prisma.analysis.lens.logit_lens import LogitLens, logit_lens
from prisma.view.browser import View, fractions
from prisma.view.browser.lens import lens_arrays, stage_names
from prisma_app.library import Scene
from prisma_app.views.shared import code_head, default_token, nested, program


def view(scene: Scene, part: int | None = None) -> View:
    """What the page draws at first (`lens_arrays`); `part` is a class whose probability [stage, token] is asked for.

    Raises:
        PrismaError: the model has no classes or no such class, cannot take the image, or has diverged.
    """
    lens = _lens(scene)
    assert lens.tokens is not None
    readout, tokens = lens.readout[0], lens.tokens[0]
    if part is not None:
        chosen = scene.index("class", part, readout.shape[-1])
        return View({"class": chosen}, {"column": fractions(tokens.softmax(-1)[..., chosen])})
    facts = {
        "stages": stage_names(scene.config.n_layers),
        "answer": int(readout[-1].argmax()),
        "state": scene.resolved(token=default_token(scene)),
        "code": code(scene),
    }
    return View(facts, lens_arrays(readout, tokens))


def values(scene: Scene) -> dict[str, Any]:
    """Logits [stage, class] of the whole image, or of one token alone if it is given; the last stage is the answer."""
    lens, token = _lens(scene, scene.state.token is not None), scene.state.token
    if token is None:
        found = lens.readout[0]
    else:
        assert lens.tokens is not None
        found = lens.tokens[0, :, scene.index("token", token, scene.config.n_tokens)]
    return nested(scene, ["stage", "class"], found, labels=scene.subject.labels)


def code(scene: Scene) -> str:
    """The Python that computes the logits [stage, class] of the image or of the state's token."""
    token = scene.state.token
    which = "lens.readout[0]" if token is None else f"lens.tokens[0, :, {token}]"
    of = "the image" if token is None else f"token {token}"
    return program(
        f"{code_head(scene)}lens = prisma.logit_lens(loaded.model, x)\n"
        f"values = {which}  # logits [stage, class] of {of}\n"
        "tokens = lens.tokens[0].softmax(-1)  # [stage, token, class]; the table has its largest over classes\n"
    )


def _lens(scene: Scene, tokens: bool = True) -> LogitLens:
    return logit_lens(scene.loaded.model, scene.picture.x[None], tokens=tokens)
