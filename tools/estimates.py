"""How well do the estimates of patching agree with exact patching? Correlations on every shipped mouse.

python -m tools.estimates --measure   writes docs/estimates.json (a few minutes of one core)
python -m tools.estimates             writes docs/estimates.md, its picture, and the table in docs/analysis/README.md

For each mouse, pairs of test images of different classes, of which no image is in two pairs; the metric is the logit
of the one class minus that of the other, and the clean run is patched. Two numbers for each method and kind of part:

    signed    correlation (Pearson) of the mean effects over pairs, estimated and exact, over all parts of the kind
    sizes     rank correlation (Spearman) of the mean sizes |effect| over pairs: the order in which to check parts

with the 95 % interval of a bootstrap over pairs, which draws the same pairs for both.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

import prisma
from prisma.analysis.circuits.attribution_passes import AttributionPasses
from prisma.analysis.circuits.gradient_run import GradientRun
from prisma.analysis.circuits.graph import Graph
from prisma.data import task
from prisma.metrics import Metric
from prisma.numbers import exact
from prisma.vit import ViT
from tools.estimates_page import DOCS, KINDS, MICE, write

NUMBERS = DOCS / "estimates.json"
PAIRS, STEPS = 64, 5
METHODS = {
    "AtP": {"steps": 1, "rules": "gradient"},
    "IG": {"steps": STEPS, "rules": "gradient"},
    "RelP": {"steps": 1, "rules": "cp_lrp"},
    "AttnLRP": {"steps": 1, "rules": "attn_lrp"},
}
Values = dict[str, Tensor]  # kind -> [pair, part]


def disjoint_pairs(name: str, pairs: int) -> tuple[Tensor, Tensor, Metric]:
    """Images of different classes, each in one pair, and the difference of their two logits."""
    images, labels = task(name).inputs("test")
    chosen = list[tuple[int, int]]()
    waiting = list[int]()
    for i in torch.randperm(len(labels), generator=torch.Generator().manual_seed(0)).tolist():
        other = next((j for j in waiting if labels[j] != labels[i]), None)
        if other is None:
            waiting.append(i)
        else:
            waiting.remove(other)
            chosen.append((other, i))
    if len(chosen) < pairs:
        raise SystemExit(f"expected {pairs} disjoint pairs in {name}; found {len(chosen)}")
    clean, corrupt = torch.tensor(chosen[:pairs]).unbind(1)
    return images[clean], images[corrupt], prisma.LogitDiff(labels[clean], labels[corrupt])


class Passes(AttributionPasses):
    """With the estimates for q, k and v of each head, all tokens together."""

    def _products(self, graph: Graph, run: GradientRun, change: GradientRun, slope_BC: Tensor) -> Values:
        found = super()._products(graph, run, change, slope_BC)
        stages = [i for i, stage in enumerate(graph.stages) if stage.kind == "attn"]
        again = Passes._run(self, graph, run.streams[0].detach())  # the graph of the first run is spent
        slopes = torch.autograd.grad(again.logits, [again.forks[i] for i in stages], slope_BC)
        each = [(exact(change.forks[i]) * exact(g)).sum((1, 4)) for i, g in zip(stages, slopes, strict=True)]
        return {**found, "sides": torch.stack(each, dim=1)}


def exact_effects(model: ViT, clean: Tensor, corrupt: Tensor, metric: Metric) -> Values:
    def patched(site: str, axis: str) -> Tensor:
        return prisma.activation_patching(model, clean, corrupt, site, metric, axis=axis).changes.flatten(1)

    found = {"heads": patched("attn.z", "head"), "stream": patched("resid_pre", "token")}
    found |= {kind: patched(f"attn.{kind[0]}", "head") for kind in ("queries", "keys", "values")}
    if model.config.d_mlp:
        found["MLPs"] = patched("mlp_out", "token")
    return {**found, "edges": prisma.path_patching(model, clean, corrupt, metric).changes[:, Graph(model.config).edges]}


def estimates(model: ViT, clean: Tensor, corrupt: Tensor, metric: Metric) -> Iterator[tuple[str, Values, bool]]:
    """(method, effects, whether they have a sign)."""
    for method, how in METHODS.items():
        found = Passes(model, metric, nodes=True, edges=True, into="clean", batch=None, **how).run(clean, corrupt)  # type: ignore[arg-type]
        values = {"heads": found["head_tokens"].sum(-1), "stream": found["tokens"]}
        values |= dict(zip(("queries", "keys", "values"), found["sides"].unbind(2), strict=True))
        values |= {"MLPs": found["mlp_tokens"]} if "mlp_tokens" in found else {}
        values |= {"edges": found["edges"][:, Graph(model.config).edges]}
        yield method, {kind: x.flatten(1) for kind, x in values.items()}, True
    for method, grad_drop in (("QK fix", False), ("AtP*", True)):
        if grad_drop and model.config.n_layers < 2:
            continue
        star = prisma.atp_star(model, clean, corrupt, metric, grad_drop=grad_drop)
        values = dict(zip(("queries", "keys", "values"), star.sides.unbind(2), strict=True))
        values |= {"heads": star.heads} | ({} if star.mlp_tokens is None else {"MLPs": star.mlp_tokens})
        if not grad_drop:  # of other parts it is the plain gradient
            values = {kind: values[kind] for kind in ("queries", "keys")}
        yield method, {kind: x.flatten(1) for kind, x in values.items()}, not grad_drop


def ranks(x: Tensor) -> Tensor:
    """Ranks, of which equal values share the mean."""
    _, group, size = x.unique(return_inverse=True, return_counts=True)
    return (size.cumsum(0) - (size - 1) / 2)[group]


def pearson(a: Tensor, b: Tensor) -> Tensor:
    a, b = a - a.mean(), b - b.mean()
    size = (a.norm() * b.norm()).clamp(min=1e-300)
    return (a @ b) / size  # 0 where a method gives all parts the same


def correlations(estimate: Tensor, truth: Tensor, signed: bool) -> dict[str, list[float]]:
    """[value, lower end, upper end] of each number, for values [pair, part]."""
    a, b = estimate.double(), truth.double()
    numbers = {"sizes": lambda rows: pearson(ranks(a[rows].abs().mean(0)), ranks(b[rows].abs().mean(0)))}
    if signed:
        numbers["signed"] = lambda rows: pearson(a[rows].mean(0), b[rows].mean(0))
    return {
        name: [round(x, 3) for x in (of(torch.arange(len(a))).item(), *prisma.bootstrap_interval(of, len(a)).tolist())]
        for name, of in numbers.items()
    }


def measured(name: str, pairs: int) -> list[dict[str, Any]]:
    model = prisma.load(f"mice/{name}").model
    case = disjoint_pairs(name, pairs)
    truth, rows = exact_effects(model, *case), []
    for method, values, signed in estimates(model, *case):
        for kind in KINDS:
            nothing = kind in ("queries", "keys") and method == "RelP"  # patterns are held: all estimates are 0
            if kind in values and not nothing and truth[kind].abs().max() > 1e-9:
                numbers = correlations(values[kind], truth[kind], signed)
                rows.append({"mouse": name, "kind": kind, "method": method, "parts": truth[kind].shape[1], **numbers})
    return rows


def measure_all() -> None:
    rows = list[dict[str, Any]]()
    for mouse in MICE:
        rows += measured(mouse, PAIRS)
    text = ",\n".join(json.dumps(row) for row in rows)
    NUMBERS.write_text(f'{{"pairs": {PAIRS}, "steps": {STEPS}, "rows": [\n{text}\n]}}\n')


def main() -> None:
    if "--measure" in sys.argv[1:]:
        measure_all()
    write(json.loads(NUMBERS.read_text()))


if __name__ == "__main__":
    main()
