"""The Logit lens tab: what the model would answer if it stopped after each layer."""

from prisma.analysis.lens.logit_lens import logit_lens
from prisma.config import ViTConfig
from prisma.errors import PrismaError
from prisma.view.browser import View, fractions, numbers
from prisma_app.session import Session
from prisma_app.tab import Tab

MAX_NUMBERS = 20_000_000  # that one page should load


class Lens(Tab):
    """The class probabilities of every layer and token."""

    TITLE = "Logit lens"
    HELP = (
        "The model's own readout, applied early. Only the last layer was trained to be read: earlier answers show what "
        "could be read, not what the model believes."
    )
    VIEWER = "lens"

    def view(self, session: Session) -> View:
        """Probabilities after the embedding and each block, for the whole image and for each token alone.

        Raises:
            PrismaError: the model has no classes or too many, cannot take the image, or has diverged.
        """
        _expect_small(session.loaded.config)
        x, model = session.picture.x[None], session.loaded.model
        lens, logits = logit_lens(model, x), model(x)[0]
        assert lens.tokens is not None
        stages = ["after the embedding", *(f"after layer {layer}" for layer in range(model.config.n_layers))]
        facts = {**session.facts(), "stages": stages, "labels": session.labels, "answer": int(logits.argmax())}
        tokens = {f"stage {i}": fractions(stage.softmax(-1)) for i, stage in enumerate(lens.tokens[0])}
        arrays = {"readout": fractions(lens.readout[0].softmax(-1)), "logits": numbers(logits), **tokens}
        return View(facts, {"image": session.image(session.picture), **arrays})


def _expect_small(config: ViTConfig) -> None:
    found = (config.n_layers + 1) * config.n_tokens * config.n_classes
    if found > MAX_NUMBERS:
        raise PrismaError(
            f"expected a logit lens of at most {MAX_NUMBERS:,} numbers for a page to load; found {found:,}: "
            f"{config.n_classes:,} classes for every token and layer. Use prisma.logit_lens in Python for this model"
        )


TAB = Lens()
