"""Are TopK coders more alike between seeds if their directions begin at, or stay among, points of the data?

python -m tools.coder_beginnings --measure   trains them on the sprites mouse (about 3 minutes of a core), and writes
                                             benchmarks/coder-beginnings.json
python -m tools.coder_beginnings             writes the tables of docs/sparse.md from the numbers

An archetypal decoder (2502.12892) has convex combinations of fixed points as its rows: a softmax of weights, which are
trained, times k-means points of the data. `begin="data"` is a plain coder whose directions begin at random tokens.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam

import prisma
from benchmarks.sparse import BATCHES, HELD_OUT, SIZES, activations
from benchmarks.sparse_contenders import Size
from prisma.data import task
from prisma.sparse.activations import Stream, source_of, split_images
from prisma.sparse.coders import Coder, CoderConfig, drawn, unit
from prisma.sparse.ground_truth import factor_recovery, indicators, latents_of_images
from prisma.sparse.jobs import MEASURED, Job
from prisma.sparse.learner import Learner, Plan
from prisma.sparse.scaling import Scaling, of_raw_activations

ROOT = Path(__file__).parents[1]
PAGE, NUMBERS = ROOT / "docs" / "sparse.md", ROOT / "benchmarks" / "coder-beginnings.json"
BEGIN, END = "<!-- beginnings -->", "<!-- /beginnings -->"
SEEDS = (0, 1)
GAINS = (1.0, 4.0, 16.0)
"""What the weights are multiplied by before the softmax: the larger, the faster a row leaves its first point."""
FIRST = 6.0  # how far the weight of its first point is above the others at the beginning, multiplied
LR = 3e-3
ROUNDS = 15  # of k-means
PLANTED = 300  # steps on sums of planted directions
FACTORS = 600  # images on which factors are looked for; no coder was trained on them


@dataclass(frozen=True)
class Setting:
    """Where coders are trained, and how large."""

    site: str
    tokens: str
    images: int
    width: int
    k: int
    points: int
    steps: int
    batch: int


SETTINGS = (
    Setting("blocks.3.resid_post", "patches", 600, 256, 8, 512, 400, 512),
    Setting("blocks.4.resid_post", "class", 1500, 64, 4, 256, 300, 256),
)


class Archetypal(Learner):
    """A coder in training whose directions are convex combinations of points [n, d]."""

    def __init__(self, plan: Plan, steps: int, points: Tensor, gain: float) -> None:
        super().__init__(plan, steps, torch.device("cpu"))
        m = plan.config.width
        first = torch.randperm(len(points), generator=torch.Generator().manual_seed(plan.seed))[:m]
        self.points, self.gain = points, gain
        self.weights = nn.Parameter(torch.zeros(m, len(points)).scatter(1, first[:, None], FIRST / gain))
        del self.coder.W_dec
        self._unit_decoder()
        with torch.no_grad():
            self.coder.W_enc.copy_(self.coder.W_dec.T)
        self.trained = [*self.coder.parameters(), self.weights]
        self.optimizer = Adam(self.trained, lr=self.lr, betas=(0.9, 0.999), fused=True)

    def _along_the_sphere(self) -> None:
        """The length of the rows is that of the combinations."""

    def _unit_decoder(self) -> None:
        with torch.enable_grad():
            rows: Any = unit((self.gain * self.weights).softmax(1) @ self.points)
            self.coder.W_dec = rows  # in place of the parameter

    def finished(self, x: Scaling, y: Scaling) -> Coder:
        plain = drawn(self.plan.config)
        plain.load_state_dict(self.coder.state_dict() | {"W_dec": self.coder.W_dec.detach()})
        return of_raw_activations(plain, x, y)


def kmeans(x: Tensor, n: int, seed: int = 0) -> Tensor:
    """[n, d]: centres of tokens [N, d]."""
    centres = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:n]].clone()
    for _ in range(ROUNDS):
        nearest = torch.cat([torch.cdist(some, centres).argmin(1) for some in x.split(8192)])
        counts = nearest.bincount(minlength=n)[:, None]
        sums = torch.zeros_like(centres).index_add_(0, nearest, x)
        centres = torch.where(counts > 0, sums / counts.clamp_min(1), centres)
    return centres


def likeness(a: Tensor, b: Tensor) -> float:
    """The mean over directions of one decoder [m, d] of the largest cosine with one of another."""
    return (unit(a) @ unit(b).T).amax(1).mean().item()


def measured(setting: Setting) -> list[dict[str, Any]]:
    """A row for each way to begin, of one site."""
    mouse, sprites = prisma.load("mice/sprites"), task("sprites")
    images, _ = sprites.inputs("train", setting.images)
    others, _ = sprites.inputs("test", FACTORS)
    values = {name: x[:FACTORS] for name, x in sprites.splits["test"].factors.items()}
    known, _ = indicators(values, sprites.factors[:2])
    source = source_of(mouse.model, images, [setting.site], setting.tokens)
    train_on, kept = split_images(len(source), 0.1)
    stream = Stream(source, train_on, setting.batch, 0)
    scaling = Scaling.of(stream.sample(MEASURED)[setting.site], setting.site)
    x = scaling(stream.sample(MEASURED)[setting.site])
    points = kmeans(x, setting.points)

    def plan(seed: int) -> Plan:
        config = CoderConfig("topk", x.shape[1], setting.width, setting.k, (setting.site,))
        dead_after = max(setting.steps * stream.batch // 10, stream.batch)
        return Plan(config, seed, LR, None, dead_after)

    def learner(how: str, seed: int, gain: float) -> Learner:
        if how == "archetypal":
            return Archetypal(plan(seed), setting.steps, points, gain)
        one = Learner(plan(seed), setting.steps, torch.device("cpu"))
        if how != "plain":
            one.begin_at(points if "k-means" in how else x)
        return one

    def row(how: str, gain: float = 0.0) -> dict[str, Any]:
        jobs = [Job(learner(how, seed, gain), {setting.site: scaling}) for seed in SEEDS]
        first = [job.learner.coder.W_dec.detach().clone() for job in jobs]
        for step in range(setting.steps):
            for job in jobs:
                job.step(stream.at(step))
        held = source.read(kept)
        coders = [job.end(stream.sample(MEASURED), held, {"tokens": setting.tokens}, None) for job in jobs]
        z = [latents_of_images(one, mouse.model, others, tokens=setting.tokens) for one in coders]
        return {
            "site": setting.site,
            "how": how,
            "gain": gain,
            "likeness_at_first": likeness(*first),
            "likeness": likeness(*(one.W_dec for one in coders)),
            "fvu_held_out": [one.told["fvu_held_out"] for one in coders],
            "dead": [one.told["dead"] for one in coders],
            "mcc": [factor_recovery(one, known).mcc for one in z],
        }

    return [
        row("plain"), *(row("archetypal", gain) for gain in GAINS), row("plain, begun at k-means points"),
        row("plain, begun at tokens"),
    ]  # fmt: skip


def planted(shape: tuple[int, int, int]) -> dict[str, Any]:
    """FVU and share of dead latents on held-out tokens of `benchmarks.sparse`, without and with `begin="data"`."""
    size, batch, cpu = Size("topk", *shape), BATCHES[shape[0]], torch.device("cpu")
    x = activations(batch * PLANTED + HELD_OUT, size.d, size.m, size.k, cpu)
    batches, held, row = x[: batch * PLANTED].view(PLANTED, batch, size.d), x[batch * PLANTED :], dict[str, Any]()
    for begin in (None, "data"):
        config = CoderConfig("topk", size.d, size.m, size.k)
        one = Learner(Plan(config, 0, 1e-3, None, batch * PLANTED // 10, begin=begin), PLANTED, cpu)
        if begin:
            one.begin_at(x[:MEASURED])
        for some in batches:
            one.step(some, some)
        with torch.no_grad():
            z = one.coder.encode(held)
            error = (held - one.coder.decode(z)).square().sum() / (held - held.mean(0)).square().sum()
        row[begin or "random"] = {"fvu_held_out": error.item(), "dead": (z == 0).all(0).double().mean().item()}
    return {**vars(size), "steps": PLANTED, "batch": batch, **row}


def table(found: Mapping[str, Any]) -> str:
    """The lines of the page, in Markdown."""
    how = "; ".join(
        f"at `{x['site']}`, {x['tokens']} tokens of {x['images']:,} images, {x['width']} latents, k {x['k']}, "
        f"{x['points']} points, {x['steps']} steps of {x['batch']} tokens"
        for x in found["settings"]
    )
    lines = [
        f"TopK coders of the sprites mouse, {len(found['seeds'])} seeds each (both are given): {how}. The likeness is "
        "the mean over directions of one seed of the largest cosine with one of the other.",
        "",
        "| site | decoder | likeness at first | in the end | FVU, held out | dead | `mcc` |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        kind = f"{row['how']}, gain {row['gain']:.0f}" if row["gain"] else row["how"]
        each = (", ".join(f"{value:.3f}" for value in row[name]) for name in ("fvu_held_out", "dead", "mcc"))
        ends = f"{row['likeness_at_first']:.2f} | {row['likeness']:.2f}"
        lines.append(f"| `{row['site']}` | {kind} | {ends} | {' | '.join(each)} |")
    lines += ["", "| planted sums | begun at | FVU, held out | dead |", "|---|---|---|---|"]
    for row in found["planted"]:
        size = f"d {row['d']}, m {row['m']:,}, k {row['k']}, {row['steps']} steps of {row['batch']}"
        for name, what in (("random", "random directions"), ("data", "tokens")):
            lines.append(f"| {size} | {what} | {row[name]['fvu_held_out']:.3f} | {row[name]['dead']:.3f} |")
    return "\n".join(lines)


def write_page() -> None:
    """The tables of the page, from the numbers."""
    text = PAGE.read_text()
    start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    PAGE.write_text(f"{text[:start]}\n{table(json.loads(NUMBERS.read_text()))}\n{text[end:]}")


def main(arguments: Sequence[str]) -> None:
    if "--measure" in arguments:
        rows = [row for setting in SETTINGS for row in measured(setting)]
        found = {"settings": [asdict(setting) for setting in SETTINGS], "seeds": SEEDS, "rows": rows}
        NUMBERS.write_text(json.dumps(found | {"planted": [planted(shape) for shape in SIZES]}, indent=1) + "\n")
    write_page()


if __name__ == "__main__":
    main(sys.argv[1:])
