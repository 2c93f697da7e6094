"""The page of `tools/estimates.py`: tables, the picture and what they come to."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prisma.view.figures.plots import STYLE

DOCS = Path(__file__).parents[1] / "docs"
PAGE, PICTURE = DOCS / "estimates.md", DOCS / "estimates.png"
INDEX = DOCS / "analysis" / "README.md"
BEGIN, END = "<!-- of tools/estimates.py -->\n", "<!-- end of tools/estimates.py -->\n"
MICE = ("circle", "induction", "digits", "sprites")
KINDS = ("heads", "queries", "keys", "values", "MLPs", "stream", "edges")


def lowest(rows: Sequence[Mapping[str, Any]], kind: str, number: str) -> dict[str, float]:
    """Method -> its correlation on the mouse where it is lowest, best method first.

    Of mice with at least 8 parts of the kind: a correlation of four numbers says nothing.
    """
    found = dict[str, float]()
    for row in rows:
        if row["kind"] == kind and number in row and row["parts"] >= 8:
            found[row["method"]] = min(row[number][0], found.get(row["method"], 1.0))
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def shown(method: str, kind: str) -> str:
    """The name of a method for nodes, or for edges."""
    return {"AtP": "EAP", "IG": "EAP-IG"}.get(method, method) if kind == "edges" else method


def trust_table(found: Mapping[str, Any]) -> str:
    """Which method to trust for what."""
    lines = ["| of | which way, and how far: trust | and least | which to check first: trust | and least |"]
    lines += ["|---|---|---|---|---|"]
    for kind in KINDS:
        cells = [kind]
        for number in ("signed", "sizes"):
            order = [(shown(method, kind), value) for method, value in lowest(found["rows"], kind, number).items()]
            cells += [f"{method} ({value:.2f})" for method, value in (order[0], order[-1])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def all_numbers(found: Mapping[str, Any], number: str) -> str:
    """A row for each kind and method: its correlation on every mouse, with the interval."""
    lines = [f"| of | method | {' | '.join(MICE)} |", f"|---|---|{'---|' * len(MICE)}"]
    for kind in KINDS:
        for method in dict.fromkeys(row["method"] for row in found["rows"] if row["kind"] == kind and number in row):
            cells = []
            for mouse in MICE:
                of = [x for x in found["rows"] if (x["mouse"], x["kind"], x["method"]) == (mouse, kind, method)]
                cells.append("{:.2f} ({:.2f} to {:.2f})".format(*of[0][number]) if of else "")
            lines.append(f"| {kind} | {shown(method, kind)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def page(found: Mapping[str, Any]) -> str:
    parts = {
        mouse: dict.fromkeys(f"{x['parts']} {x['kind']}" for x in found["rows"] if x["mouse"] == mouse)
        for mouse in MICE
    }
    return TEXT.format(
        pairs=found["pairs"], steps=found["steps"], trust=trust_table(found), signed=all_numbers(found, "signed"),
        sizes=all_numbers(found, "sizes"), parts="; ".join(f"{m}: {', '.join(x)}" for m, x in parts.items()),
    )  # fmt: skip


def draw(found: Mapping[str, Any]) -> None:
    """The correlations with their intervals: a panel for each mouse, above of sign and size, below of the order."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row["method"] for row in found["rows"]))
    colours = ["#8a8f98", "#30638e", "#d1495b", "#edae49", "#003d5b", "#00798c"]
    with rc_context(STYLE):
        figure = Figure(figsize=(11, 7), dpi=110, layout="constrained")
        for row, number in zip(
            figure.subplots(2, len(MICE), sharex=True, sharey=True), ("signed", "sizes"), strict=True
        ):
            for panel, mouse in zip(row, MICE, strict=True):
                for x in (x for x in found["rows"] if x["mouse"] == mouse and number in x):
                    at, (value, low, high) = names.index(x["method"]), x[number]
                    y = -KINDS.index(x["kind"]) + 0.3 - 0.12 * at
                    panel.plot([low, high], [y, y], color=colours[at], linewidth=1.4, alpha=0.7)
                    panel.plot(value, y, "o", color=colours[at], markersize=3.5, label=x["method"])
                panel.axvline(0, color="#e6e8eb", zorder=0)
                panel.set_title(mouse, fontsize=9, loc="left")
                panel.set_xlabel(
                    {"signed": "correlation of mean effects", "sizes": "rank correlation of sizes"}[number]
                )
            row[0].set_yticks([-i for i in range(len(KINDS))], KINDS)
        known = {text: line for line, text in zip(*row[-1].get_legend_handles_labels(), strict=True)}
        figure.legend(known.values(), known.keys(), loc="outside lower center", ncols=len(known), fontsize=8)
    figure.savefig(PICTURE)


def write(found: Mapping[str, Any]) -> None:
    draw(found)
    PAGE.write_text(page(found))
    before, rest = INDEX.read_text().split(BEGIN)
    INDEX.write_text(before + BEGIN + "\n" + trust_table(found) + "\n" + END + rest.split(END)[1])


TEXT = """\
# Which estimate of patching to trust

Exact patching takes a run for every part of a model. Four kinds of estimates take a few passes for all parts:
[attribution patching](analysis/attribution_patching.md) (AtP, and with {steps} steps integrated gradients, IG; for
edges EAP and EAP-IG), [AtP*](analysis/atp_star.md) (the QK fix alone, and with GradDrop), and
[relevance patching](analysis/relevance_patching.md) (RelP, and with the rules of AttnLRP). How well do they agree with
exact patching, on each of the shipped mice?

**How to read the numbers.** 1: the estimate tells parts apart as exact patching does. 0: it says nothing. The first
number of each method is the correlation of its mean effects over pairs with the exact ones: do sign and size agree? The
second is the rank correlation of the mean sizes: are the parts that it puts first those to check first? In brackets:
the 95 % interval of a bootstrap over pairs, which draws the same pairs for the estimate and the exact effects.

Measured on {pairs} pairs of test images of different classes, of which no image is in two pairs; the metric is the
logit of the one class minus that of the other; the values of the second image are patched into the run on the first.
Parts: {parts}. Heads, queries, keys and values are patched at all tokens at once, MLPs and the stream at one token;
exact effects of edges are those of [path patching](analysis/path_patching.md).

![Correlations of each method with exact patching, with intervals](estimates.png)

## Which method for what

The method whose lowest correlation over the mice is highest, and the one whose lowest is lowest, each with that lowest
correlation. Mice with fewer than 8 parts of a kind are left out here.

{trust}
What it comes to:

- **MLPs at single tokens** are easy: every signed estimate finds sign and size, because what one MLP writes at one
  token is a small change of the stream.
- **Heads**: RelP and the integrated gradient give sign and size better than one gradient on the shallow mice, and none
  is good at the sign of a mean effect on the sprites mouse, whose heads push different pairs in different directions.
  The order by size is mostly right there too.
- **Queries and keys**: the QK fix is nowhere worse than the plain gradient, and much better for the keys of the
  induction mouse, whose patterns saturate. On the sprites mouse the integrated gradient gives signs best. RelP, which
  holds patterns, has nothing to say about queries and keys.
- **GradDrop needs depth.** With L layers it leaves out one of L at a time. With two layers, as in the digits mouse,
  what is left of an early part is its direct effect alone, and the order is much worse than without it. With six it is
  a little worse than without. Nothing here shows a gain, for these mice have few effects that cancel exactly.
- **Edges**: EAP-IG, for both. One gradient gives the order as well, but for the induction mouse. RelP's order is
  the worst: the edges into queries and keys are 0 to it.
- **The stream**: the integrated gradient, above all from the embedding of the one-layer mice.

## All numbers

Correlation of mean effects (sign and size):

{signed}
Rank correlation of mean sizes (the order). A bootstrap of ranks is biased towards 0 where many sizes are nearly equal,
so an interval may end at its own number:

{sizes}
**Limits.** Four mice of 1 to 6 layers and one kind of metric: this says what these estimates do on small vision
transformers, not what they do on a large one. An estimate that correlates is not an exact effect: its scale may differ.
Pairs of different classes change much at once, which is hard for a first-order estimate; pairs that differ in one
object, or in nothing but noise, are easier. With four or five parts (the circle mouse) a correlation is nearly
arbitrary, as its intervals show.

This page is written by `tools/estimates.py`; `python -m tools.estimates --measure` measures anew.
"""
