"""The page of `tools/circuit_formation.py`: tables, the picture and what they come to."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prisma.view.figures.charts import COLOURS
from prisma.view.figures.plots import STYLE
from tools.varying_goals import wrapped

ROOT = Path(__file__).parents[1]
NUMBERS = ROOT / "docs" / "circuit-formation.json"
PAGE, PICTURE = NUMBERS.with_suffix(".md"), NUMBERS.with_suffix(".png")
LOSSES = ("training loss", "test loss", "restricted loss", "restricted, test alone", "excluded loss")
FALLS = ("restricted loss", "restricted, test alone", "test loss")
CHANCE = 1 / 17
"""Attention to one of 17 tokens by chance."""
WAVES = (
    "seed", "restricted loss falls at step", "that of test pairs alone", "test loss falls at step",
    "key frequencies, and where each rises",
)  # fmt: skip
ENDS = (
    "seed", "excluded loss of training pairs: least, at step", "at the end", "test loss at the end",
    "restricted loss at the end", "share of key frequencies in embeddings, first and last", "in logits, first and last",
)  # fmt: skip
ANSWERS = (
    "seed", "orientation is right from step", "sameness is right from step", "loss falls at step",
    "heads that come to look at the glyphs, and when", "most attention to the previous patch, of any head at any step",
)  # fmt: skip


def write(found: Mapping[str, Any]) -> None:
    """Write the page and its picture."""
    PAGE.write_text(page(found))
    draw(found)


def page(found: Mapping[str, Any]) -> str:
    circle, induction = found["circle"], found["induction"]
    return wrapped(f"""# When circuits form

A loss curve says when a model became good at its task. When did the parts form that make it so? Here two mice are
looked at in every checkpoint of their training. A *change point* divides the checkpoints into two parts, each with a
level of its own, where the two levels leave the least squared error; its interval comes from a bootstrap over images
([over training](analysis/README.md)). All checkpoints count alike: steps 0, 1, 2, 4 and so on to 512, then every
{circle[0]["steps"][-1] - circle[0]["steps"][-2]} (circle) or
{induction[0]["steps"][-1] - induction[0]["steps"][-2]} (induction).

![Losses of the circle mouse and what each key frequency adds; what the induction mouse answers and where its heads
look](circuit-formation.png)

## The circle mouse: waves before the test loss falls

The mouse adds two drawn numbers modulo 60. It knows its training pairs by heart within 300 steps, and answers the test
pairs much later. The [Fourier components](analysis/fourier_components.md) of every checkpoint, at the key frequencies
of the last one, show what happens in between.

{_table(WAVES, [_circle_row(x) for x in circle])}

Steps of the change points, with 95 % intervals in brackets, all for the test pairs. The restricted loss keeps the waves
of the key frequencies in the mean over all pairs of a sum, as in the paper, and so over training pairs that are known
by heart; the next column has the mean over test pairs alone. A frequency rises where its part of the right logit does.

{_table(ENDS, [_losses_row(x) for x in circle])}

{_verdict_circle(circle)}

## The induction mouse: one question, then the other

The mouse says how two glyphs lie (orientation) and whether they are the same (sameness), with one layer of attention
alone. Two questions have two curves.

{_table(ANSWERS, [_induction_row(x) for x in induction])}

{_verdict_induction(induction)}

**Limits.** A change point is the best single step between two levels: a curve that falls and rises, such as the
excluded loss, has none that means something, and for a slow rise it lies in its middle. Intervals are over images,
not over seeds: the seeds differ by more than the intervals are wide. That one number changes before another does not
show that it causes it. The key frequencies are those of the last checkpoint, so waves that a mouse tried and gave up
are counted as something else. And these mice are tiny: nothing here says that circuits of large models form in this
order.

Source of the two losses: Nanda et al., [2301.05217](https://arxiv.org/abs/2301.05217).

```bash
python -m tools.circuit_formation --measure   # trains and measures again
prisma analyze fourier_components --model runs/circuit-formation/circle-0 --images circle --revisions all \\
    --array restricted_loss --set frequencies={",".join(map(str, circle[0]["frequencies"]))}
```
""")


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows))


def at_step(change: Mapping[str, Sequence[float]]) -> str:
    step, low, high = (f"{x:,}" for x in change["step"])
    return f"{step} ({low} to {high})"


def _circle_row(x: Mapping[str, Any]) -> list[str]:
    changes, keys = x["changes"], x["frequencies"]
    rises = sorted((changes[f"frequency {k}"]["step"][0], k) for k in keys)
    each = ", ".join(f"{k}: {step:,}" for step, k in rises)
    return [str(x["seed"]), *(at_step(changes[name]) for name in FALLS), each]


def _losses_row(x: Mapping[str, Any]) -> list[str]:
    curves = x["curves"]
    excluded = curves["excluded loss"]
    least = min(excluded)
    return [
        str(x["seed"]), f"{least:.3f}, {x['steps'][excluded.index(least)]:,}", f"{excluded[-1]:.2f}",
        f"{curves['test loss'][-1]:.2g}", f"{curves['restricted loss'][-1]:.2g}",
        *(f"{curves[name][0]:.2f}, {curves[name][-1]:.2f}" for name in ("embedding", "logits")),
    ]  # fmt: skip


def _verdict_circle(rows: Sequence[Mapping[str, Any]]) -> str:
    steps = [{name: x["changes"][name]["step"] for name in FALLS} for x in rows]
    before = {name: sum(x[name][2] < x["test loss"][1] for x in steps) for name in FALLS[:2]}
    gaps = {name: [x["test loss"][0] - x[name][0] for x in steps] for name in FALLS[:2]}
    shared = set.intersection(*(set(x["frequencies"]) for x in rows))
    by_heart = [min(x["curves"]["excluded loss"]) for x in rows]
    ends = [x["curves"]["excluded loss"][-1] for x in rows]
    many = ", ".join(map(str, sorted(shared))) or "none"
    of_all, alone = FALLS[:2]
    return (
        f"**What was found.** In {before[of_all]} of {len(rows)} runs the restricted loss falls before the test loss "
        f"does, with intervals apart ({_range(gaps[of_all], ',')} steps between them); with the means of test pairs "
        f"alone in {before[alone]} of {len(rows)} ({_range(gaps[alone], ',')} steps). Waves that are right on average "
        f"are there before the single answers are, which what is known by heart still disturbs. At first the training "
        f"pairs are answered without any key frequency (excluded loss {_range(by_heart, '.3f')} at its least), and at "
        f"the end no longer ({_range(ends, '.2f')}; chance is 4.09). The frequencies do not come at once but one after "
        f"the other. Key in all runs: {many}; the others depend on the seed."
    )


def _induction_row(x: Mapping[str, Any]) -> list[str]:
    changes = x["changes"]
    looks = _lookers(x)
    heads = ", ".join(f"{h}: {at_step(changes[f'object {h}'])}" for h in looks) or "none"
    most = max(max(values) for name, values in x["each"].items() if name.startswith("previous patch"))
    steps = (at_step(changes[name]) for name in ("orientation", "sameness", "loss"))
    return [str(x["seed"]), *steps, heads, f"{most:.3f} (chance {CHANCE:.3f})"]


def _lookers(x: Mapping[str, Any]) -> list[int]:
    """The heads whose attention from the class token to the glyphs rises to three times what it was before training."""
    each = {int(name.split()[-1]): v for name, v in x["each"].items() if name.startswith("object")}
    return [h for h, v in sorted(each.items()) if v[-1] > 3 * v[0]]


def _verdict_induction(rows: Sequence[Mapping[str, Any]]) -> str:
    first = [x["changes"]["orientation"]["step"][2] < x["changes"]["sameness"]["step"][1] for x in rows]
    gaps = [x["changes"]["sameness"]["step"][0] - x["changes"]["orientation"]["step"][0] for x in rows]
    lens = [x["curves"]["embedding loss"] for x in rows]
    least = min(min(values) for values in lens)
    most = max(max(v) for x in rows for name, v in x["each"].items() if name.startswith("previous patch"))
    return (
        f"**What was found.** In {sum(first)} of {len(rows)} runs the orientation comes first, with intervals apart; "
        f"{_range(gaps, ',')} steps are between the two. The lens before the block never has a loss below {least:.2f} "
        f"(chance is 1.39): all of it is done by attention. Heads of the class token come to look at the glyphs. No "
        f"head looks at the previous patch with more than {most:.2f} of its attention at any step: the induction heads "
        f"of language models (a head for the previous token, and one that looks for what came after it) are not what "
        f"this mouse learns. It has one layer, and in images nothing comes before."
    )


def _range(values: Sequence[float], form: str) -> str:
    low, high = f"{min(values):{form}}", f"{max(values):{form}}"
    return low if low == high else f"{low} to {high}"


def draw(found: Mapping[str, Any]) -> None:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    circle, induction = found["circle"][0], found["induction"][0]
    with rc_context(STYLE):
        figure = Figure(figsize=(10, 6.4), dpi=150, layout="constrained")
        panels = figure.subplots(2, 2)
        losses = {name: circle["curves"][name] for name in LOSSES}
        _panel(panels[0, 0], circle["steps"], losses, "circle: losses (nats)")
        panels[0, 0].set_ylim(0, 8)
        waves = {name.removeprefix("frequency "): x for name, x in circle["each"].items()}
        _panel(panels[0, 1], circle["steps"], waves, "circle: what each key frequency adds to the right logit")
        answers = {name: induction["curves"][name] for name in ("orientation", "sameness")}
        _panel(panels[1, 0], induction["steps"], answers, "induction: share of right answers to each question")
        heads = {f"head {n.split()[-1]}": x for n, x in induction["each"].items() if n.startswith("object")}
        _panel(panels[1, 1], induction["steps"], heads, "induction: attention of the class token to the glyphs")
        panels[1, 1].set_ylim(0, 0.2)  # room for the names of the heads
        for panel in panels[1]:
            panel.set_xlabel("training step")
        figure.savefig(PICTURE)


def _panel(panel: Any, steps: Sequence[int], lines: Mapping[str, Sequence[float]], title: str) -> None:
    for i, (name, values) in enumerate(lines.items()):
        style = "-" if i < len(COLOURS) else "--"
        panel.plot(steps, values, style, color=COLOURS[i % len(COLOURS)], linewidth=1.2, label=name)
    panel.set_title(title, loc="left", fontsize=9)
    panel.grid(color="#e6e8eb")
    panel.legend(fontsize=7, ncols=2 if len(lines) > 4 else 1)
