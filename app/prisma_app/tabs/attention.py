"""The Attention tab: the attention patterns of one image in every layer and head."""

from prisma.runs import record
from prisma.view.browser import View, fractions
from prisma_app.session import Session
from prisma_app.tab import Tab


class Attention(Tab):
    """Which tokens every head reads from."""

    TITLE = "Attention"
    HELP = "Where information may flow from, head by head. Attention is not explanation: see Patching for what matters."
    VIEWER = "attention"

    def view(self, session: Session) -> View:
        """Patterns [head, query, key] of every layer.

        Raises:
            PrismaError: the model cannot take the image, or has diverged.
        """
        _, acts = record(session.loaded.model, session.picture.x[None], "blocks.*.attn.pattern", stop=True)
        patterns = {f"layer {layer}": fractions(pattern[0]) for layer, pattern in enumerate(acts.values())}
        return View(session.facts(), {"image": session.image(session.picture), **patterns})


TAB = Attention()
