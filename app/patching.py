"""The Patching tab: which heads and tokens carry the difference between two images. Exact, one run per cell."""

from app.question import metric_of
from app.session import Session
from prisma.analysis.patching.activation_patching import sweep
from prisma.config import ViTConfig
from prisma.errors import PrismaError
from prisma.view.browser import View, numbers

TITLE = "Patching"
HELP = (
    "Each cell is one run in which a single head or token holds what it computed for the other image: a cause, "
    "for this pair of images and this metric."
)
VIEWER = "effects"
FINEST = 1e-3  # differences below what is printed are rounding, and get no colour
MOST = 2e12  # multiply-adds for one view: some tens of seconds on a few CPU cores


def view(session: Session) -> View:
    """Effects [layer, head] of `attn.z` and [layer, token] of the chosen site, and the metric of both runs.

    Raises:
        PrismaError: the model cannot take the images, has diverged, or is too large to patch while one waits.
    """
    _expect_quick(session.loaded.config)
    question, model = session.question, session.loaded.model
    metric, name = metric_of(question, session.labels)
    clean, corrupt = session.picture.x[None], session.corrupt.x[None]
    heads = sweep(model, clean, corrupt, "attn.z", metric, into=question.into)
    tokens = sweep(model, clean, corrupt, question.site, metric, into=question.into, axis="token")
    runs = {"clean": metric(model(clean)).item(), "corrupt": metric(model(corrupt)).item()}
    base = runs[question.into]  # the middle of the colours
    found = (*runs.values(), *heads.flatten().tolist(), *tokens.flatten().tolist())
    reach = max(FINEST, *(abs(x - base) for x in found))
    scale = {"low": base - reach, "high": base + reach}
    facts = {**session.facts(), **runs, **scale, "metric": name, "site": question.site, "into": question.into}
    images = {"clean": session.image(session.picture), "corrupt": session.image(session.corrupt)}
    return View(facts, {**images, "heads": numbers(heads), "tokens": numbers(tokens)})


def _expect_quick(config: ViTConfig) -> None:
    runs = config.n_layers * (config.n_heads + config.n_tokens)
    weights = config.n_layers * config.d_model * (4 * config.d_model + 2 * config.d_mlp)
    if runs * weights * config.n_tokens > MOST:
        raise PrismaError(
            f"patching every head and token of this model is {runs:,} runs of {weights:,} weights on {config.n_tokens} "
            "tokens, more than a page should wait for: prisma.sweep does it from Python"
        )
