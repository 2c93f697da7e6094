"""The Logit lens tab: what the model would answer if it stopped after each layer."""

from app.session import Session
from prisma.analysis.lens import logit_lens
from prisma.view import View, fractions, numbers

TITLE = "Logit lens"
HELP = (
    "The model's own readout, applied early. Only the last layer was trained to be read: earlier answers show what "
    "could be read, not what the model believes."
)
VIEWER = "lens"


def view(session: Session) -> View:
    """Probabilities after the embedding and each block, of the whole image and of each token alone.

    Raises:
        PrismaError: the model has no classes, cannot take the image, or has diverged.
    """
    x, model = session.picture.x[None], session.loaded.model
    lens, logits = logit_lens(model, x), model(x)[0]
    stages = ["after the embedding", *(f"after layer {layer}" for layer in range(model.config.n_layers))]
    facts = {**session.facts(), "stages": stages, "labels": session.labels, "answer": int(logits.argmax())}
    tokens = {f"stage {i}": fractions(stage[0].softmax(-1)) for i, stage in enumerate(lens.tokens)}
    arrays = {"readout": fractions(lens.readout[:, 0].softmax(-1)), "logits": numbers(logits), **tokens}
    return View(facts, {"image": session.image(session.picture), **arrays})
