"""Average causal traces over many facts, by groups of tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from prisma.analysis.result import Effect
from prisma.analysis.statistics import mean_interval, standard_error
from prisma.errors import PrismaError, quoted
from prisma.language.anatomy import Anatomy, anatomy
from prisma.language.causal_trace import CausalTrace, UnknownFactError, causal_trace, embedding_scale
from prisma.language.facts import Fact
from prisma.language.prompts import GROUPS
from prisma.view.figures.tracing import draw_tracing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True, eq=False)
class AverageTrace(Effect):
    """Average indirect effects (AIE) of groups of tokens, over the facts that the model knows.

    `metadata["facts"]` is how many were asked, `metadata["known"]` how many it knew. Facts about one subject are no
    independent evidence: errors and intervals are over subjects (`metadata["subjects"]`). A group without a token in a
    fact (a subject of one word has no first token but its last) is left out of the average for that fact.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "effect": ("group", "layer"),
        "stderr": ("group", "layer"),
        "indirect": ("fact", "group", "layer"),
        "clean": ("fact",),
        "corrupt": ("fact",),
    }
    UNDEFINED: ClassVar[frozenset[str]] = frozenset({"indirect"})

    indirect: Tensor  # [fact, group, layer]: mean over the tokens of the group; NaN where there are none
    clean: Tensor  # [fact]: probability of the answer
    corrupt: Tensor  # [fact]: mean over draws of the noise

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        return {"group": GROUPS}

    @property
    def per_image(self) -> Tensor:
        return self.indirect

    @property
    def effect(self) -> Tensor:
        """[group, layer]: AIE; NaN for a group that no fact has."""
        return self.indirect.nanmean(0)

    @property
    def stderr(self) -> Tensor:
        """[group, layer]: standard error of `effect` over the subjects of the facts that have the group."""
        return standard_error(self.indirect, self.metadata["subjects"])

    @property
    def total(self) -> Tensor:
        """ATE: what the noise takes away of the probability of the answer, mean over facts."""
        return (self.clean - self.corrupt).mean()

    def interval(self, of: str = "effect", level: float = 0.95) -> Tensor:
        """Bootstrap interval over subjects [2, group, layer] of `"effect"`, or [2] of `"total"`.

        Raises:
            PrismaError: there is no such number, or `level` is not between 0 and 1.
        """
        figures = {"effect": self.indirect, "total": self.clean - self.corrupt}
        if of not in figures:
            raise PrismaError(f"expected one of {', '.join(figures)}; found {quoted(of)}")
        return mean_interval(figures[of], groups=self.metadata["subjects"], level=level)

    def plot(self, array: str | None = None) -> "Figure":
        """The picture of the paper: AIE by group of tokens and layer; or another array."""
        if array is not None:
            return super().plot(array)
        facts = self.metadata
        return draw_tracing(self.effect, GROUPS, facts["kind"], window=facts["window"], sever=facts["sever"])

    def report(self, classes: Sequence[str] = ()) -> str:
        """The average total effect, and where most comes back."""
        effect = self.effect.nan_to_num()
        group, layer = divmod(int(effect.argmax()), effect.shape[1])
        facts = self.metadata
        return (
            f"{facts['known']} of {facts['facts']} facts are known; average total effect {self.total:.3f}; most comes "
            f"back with the {GROUPS[group]} at layer {layer}: {effect.max():+.3f}"
        )


def average_trace(model: nn.Module | Anatomy, tokenizer: Any, facts: Sequence[Fact], **options: Any) -> AverageTrace:
    """In which layers, and in which tokens of a prompt, does a language model hold what it knows, on average?

    Args:
        facts: those whose `true` the model does not answer are counted and left out, as in ROME.
        options: those of `causal_trace`. The noise is 3 standard deviations of the embeddings of all these subjects.

    Raises:
        PrismaError: the model knows none of the facts, or as `causal_trace`.
    """
    parts = anatomy(model)
    chosen = {"noise": 3.0, "sigma": None, **options}
    named = chosen["sigma"] is None
    if named:
        chosen["sigma"] = chosen["noise"] * embedding_scale(parts, tokenizer, [fact.subject for fact in facts])
    traces: list[CausalTrace] = []
    for fact in facts:
        try:
            traces.append(causal_trace(parts, tokenizer, fact.prompt, fact.subject, answer=fact.true or None, **chosen))
        except UnknownFactError:
            continue
    if not traces:
        raise PrismaError(f"expected facts that the model knows; found none among {len(facts)}")
    shared = {name: traces[0].metadata[name] for name in ("kind", "window", "sever", "sigma", "samples", "seed")}
    return AverageTrace(
        metadata={
            "analysis": "average_trace", **shared, "sigma_of": "subjects" if named else "given", "facts": len(facts),
            "known": len(traces), "subjects": [trace.metadata["subject"] for trace in traces],
        },
        indirect=torch.stack([_by_group(trace) for trace in traces]),
        clean=torch.stack([trace.clean for trace in traces]),
        corrupt=torch.stack([trace.corrupt.mean() for trace in traces]),
    )  # fmt: skip


def _by_group(trace: CausalTrace) -> Tensor:
    """[group, layer]: mean over the tokens of each group."""
    effect, groups = trace.effect, trace.metadata["groups"]
    return torch.stack([effect[groups[name]].mean(0) for name in GROUPS])  # the mean of none is NaN
