"""How good a circuit is: figures over pairs, with their spread, and what chance would give.

How good the ranking is, at all sizes, is what MIB's two numbers say. With f(p) the faithfulness of the best share p of
all N edges, int(p N) of them without dead ends, at p = 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1:

    CPR (integrated circuit performance ratio) = integral of f(p) dp            by the trapezoid rule between these p
    CMD (integrated circuit-model distance)    = integral of |1 - f(p)| dp      0: the model's answer at every size

Nothing is added below p = 0.001, as in MIB's own code. Here edges are ranked greedily, by the absolute score for both;
`circuit_evaluation` ranks as MIB does.

Sources: Mueller et al. 2504.13151 (MIB: CPR and CMD); Efron 1979 (the bootstrap).
"""

from dataclasses import dataclass
from math import isfinite
from typing import Any, ClassVar

import torch
from torch import Tensor

from prisma.analysis.circuits.circuit_search import is_faithful
from prisma.analysis.result import Result
from prisma.analysis.statistics import bootstrap_interval, share_of
from prisma.errors import PrismaError

PROPORTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""The shares of all edges at which MIB measures faithfulness."""
FIGURES = ("faithfulness", "completeness", "cpr", "cmd")
"""The numbers of a circuit that have a bootstrap interval over pairs."""


def cpr_of(curve: Tensor) -> Tensor:
    """The area under faithfulness [..., proportion] at `PROPORTIONS`."""
    return torch.trapezoid(curve.double(), curve.new_tensor(PROPORTIONS, dtype=torch.float64))


def cmd_of(curve: Tensor) -> Tensor:
    """The area between faithfulness [..., proportion] and 1."""
    return cpr_of((1 - curve.double()).abs())


@dataclass(frozen=True, kw_only=True, eq=False)
class CircuitFigures(Result):
    """The metric of each pair in runs of a circuit, and the figures that follow from it.

    `metadata["total_to_spread"]` is the size of the total effect in standard deviations over pairs: below 1 the pairs
    do not agree on the effect that is shared out.
    """

    AXES: ClassVar = {
        "values": ("image",),
        "complement": ("image",),
        "clean": ("image",),
        "ablated": ("image",),
        "per_pair": ("image",),
        "random_values": ("draw", "image"),
        "curve_values": ("proportion", "image"),
    }

    values: Tensor  # the metric of the circuit's run
    complement: Tensor  # of the run with all edges but the circuit's
    clean: Tensor  # of the run with all edges
    ablated: Tensor  # of the run with no edges
    random_values: Tensor | None = None  # of the runs of random circuits of the same size
    curve_values: Tensor | None = None  # of the runs of the best `PROPORTIONS` of all edges

    @property
    def faithfulness(self) -> float:
        """How much of the metric the circuit reproduces: 1 for all of it, more than 1 if it overshoots.

        Raises:
            PrismaError: the metric does not differ between the runs with all edges and with none.
        """
        return self._figure("faithfulness").item()

    @property
    def completeness(self) -> float:
        """1 minus what the edges outside the circuit reproduce: 1 if they contribute nothing. Raises as above."""
        return self._figure("completeness").item()

    @property
    def faithful(self) -> bool:
        """Whether |1 - faithfulness| <= 1 - enough on these pairs."""
        return bool(is_faithful(self._figure("faithfulness"), self.metadata.get("enough", 0.95)))

    @property
    def cpr(self) -> float:
        """MIB's integrated circuit performance ratio: the area under the curve of faithfulness over shares of edges.

        Raises:
            PrismaError: the result is of `check_circuit`, which has no curve.
        """
        return self._figure("cpr").item()

    @property
    def cmd(self) -> float:
        """MIB's integrated circuit-model distance, between that curve and 1: 0 is best. Raises as `cpr`."""
        return self._figure("cmd").item()

    @property
    def per_pair(self) -> Tensor:
        """[image]: the part of the metric that the circuit reproduces in each pair, over the mean total effect.

        Its mean is `faithfulness`; its spread shows whether that is what happens in each pair.
        """
        return (self.values - self.ablated) / (self.clean - self.ablated).mean()

    @property
    def random_faithfulness(self) -> Tensor:
        """[draw]: faithfulness of each random circuit; empty if none were drawn."""
        return self.values.new_zeros(0) if self.random_values is None else self._share(self.random_values)

    def interval(self, figure: str = "faithfulness", level: float = 0.95) -> tuple[float, float]:
        """The bootstrap interval over pairs of one of `FIGURES`.

        Raises:
            PrismaError: there is no such figure.
        """
        ends = bootstrap_interval(lambda rows: self._figure(figure, rows), len(self.values), level=level)
        return ends[0].item(), ends[1].item()

    def to_dict(self) -> dict[str, Any]:
        """As for every result, and also each of `FIGURES` with its interval."""
        figures = {
            name: {
                "value": self._figure(name).item(),
                "interval": [x if isfinite(x) else None for x in self.interval(name)],
            }
            for name in FIGURES[: 2 if self.curve_values is None else 4]
        }
        return {**super().to_dict(), "figures": figures}

    def _figure(self, figure: str, rows: Tensor | slice = slice(None)) -> Tensor:
        """One of `FIGURES` on some of the pairs."""
        if figure in ("cpr", "cmd") and self.curve_values is not None:
            curve = self._share(self.curve_values, rows)
            return cpr_of(curve) if figure == "cpr" else cmd_of(curve)
        if figure == "faithfulness":
            return self._share(self.values, rows)
        if figure == "completeness":
            return 1 - self._share(self.complement, rows)
        known = FIGURES[: 2 if self.curve_values is None else 4]
        raise PrismaError(f"expected one of {', '.join(known)}; found {figure!r}")

    def _share(self, values: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        base = self.ablated[rows].mean()
        effect, total = values[..., rows].mean(-1) - base, self.clean[rows].mean() - base
        return share_of(effect, total) if isinstance(rows, slice) else effect / total
