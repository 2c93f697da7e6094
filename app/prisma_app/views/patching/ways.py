"""The library's ways to estimate what patching each part changes, and which parts each of them has numbers for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from prisma.analysis.circuits.atp_star import AtpStar, atp_star
from prisma.analysis.circuits.attribution_patching import AttributionPatching, attribution_patching
from prisma.analysis.circuits.relevance_patching import relevance_patching
from prisma.config import ViTConfig
from prisma.errors import PrismaError
from prisma_app.views.patching.estimates import FIELDS
from prisma_app.views.patching.question import Question

SIDES: Mapping[str, str] = {"queries": "attn.q", "keys": "attn.k", "values": "attn.v"}
"""Part -> its site; in the order of the sides of `prisma.atp_star`."""


@dataclass(frozen=True)
class Way:
    """A way to estimate what patching a part changes."""

    name: str
    words: str  # what it does
    run: Callable[..., AttributionPatching | AtpStar]
    settings: Mapping[str, Any] = field(default_factory=dict)
    signed: bool = True  # whether a number has a sign; else it is a size
    layers: int = 1  # that a model has at least

    def call(self, into: str) -> str:
        """The Python that computes it."""
        more = "".join(f", {name}={value!r}" for name, value in self.settings.items())
        return f"prisma.{self.run.__name__}(loaded.model, x, corrupt, metric, into={into!r}{more})"


WAYS: Mapping[str, Way] = {
    "atp": Way("AtP", "the change of each part times the gradient", attribution_patching),
    "ig": Way("IG", "the mean gradient of 5 runs between the two images", attribution_patching, {"steps": 5}),
    "relp": Way("RelP", "relevance in the place of the gradient", relevance_patching),
    "attn_lrp": Way(
        "RelP (AttnLRP)", "relevance that also flows through patterns", relevance_patching, {"rules": "attn_lrp"}
    ),
    "qk_fix": Way("AtP* (QK fix)", "the gradient, with patterns computed exactly", atp_star, {"grad_drop": False}),
    "atp_star": Way(
        name="AtP*",
        words="the mean size over gradients that leave out one layer each; sizes have no sign",
        run=atp_star,
        signed=False,
        layers=2,
    ),
}
"""The values of `estimate` in an address."""


def ways_of(config: ViTConfig) -> dict[str, Way]:
    """Those of `WAYS` that a model of this shape has."""
    return {name: way for name, way in WAYS.items() if config.n_layers >= way.layers}


def parts_of(question: Question, name: str) -> dict[str, Tensor]:
    """Part -> [layer, head], or [layer, token] for tokens of a site that the library estimates.

    Raises:
        PrismaError: the model is too shallow for the way.
    """
    way = WAYS[name]
    if name not in (known := ways_of(question.config)):
        raise PrismaError(
            f"expected a model of {way.layers} layers or more for {way.name}; found {question.config.n_layers}: choose "
            f"{', '.join(way.name for way in known.values())}"
        )
    found = way.run(
        question.model, question.clean, question.corrupt, question.metric, into=question.into, **way.settings
    )
    tokens: Tensor | None
    if isinstance(found, AtpStar):
        sides = dict(zip(SIDES, found.sides[0].unbind(1), strict=True))
        tokens = found.mlp_tokens if question.site == "mlp_out" else None
    else:
        sides, tokens = {}, getattr(found, FIELDS[question.site]) if question.site in FIELDS else None
    return {"heads": found.heads[0], **sides, **({} if tokens is None else {"tokens": tokens[0]})}
