"""Write the tables of the README and of four pages of docs/ from the files that hold their numbers.

These are `hub_cards/*/results.json` and `benchmarks/*.json`.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = (README, *(ROOT / "docs" / f"{name}.md" for name in ("publishing", "app", "features", "analysis/README")))


def results() -> str:
    """A row for each mouse whose weights come with the package."""
    lines = ["| mouse | test accuracy | on | parameters | trained with |", "|---|---|---|---|---|"]
    for path in sorted((ROOT / "hub_cards").glob("*/results.json")):
        if not (ROOT / "prisma" / "mice" / path.parent.name).is_dir():
            continue
        found = json.loads(path.read_text())
        test = next(row for row in found["results"] if row["name"] == "test accuracy")
        cells = (
            f"[{found['recipe']}](hub_cards/{path.parent.name}/README.md)",
            f"{test['value']:.3f}",
            f"{test['n']} test images",
            f"{found['parameters']:,}",
            f"`{found['command']}`",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def speed() -> str:
    """The ratios of `benchmarks.core`, one column per batch size."""
    measured = json.loads((ROOT / "benchmarks" / "core-cpu.json").read_text())
    ratios = [line for line in measured["lines"] if line["unit"] == "x"]
    batches = dict.fromkeys(line["what"].split(", batch ")[1] for line in ratios)
    rows = dict.fromkeys((line["what"].split(", batch ")[0], line["against"]) for line in ratios)
    found = {(*line["what"].split(", batch "), line["against"]): line["value"] for line in ratios}
    lines = [f"| time of | over that of | {' | '.join(f'batch {batch}' for batch in batches)} |"]
    lines.append("|" + "---|" * (2 + len(batches)))
    for what, against in rows:
        cells = (f"{found[what, batch, against]:.2f}" for batch in batches)
        lines.append(f"| {what} | {against} | {' | '.join(cells)} |")
    where = f"torch {measured['torch']}, timm {measured['timm']}, {measured['threads']} threads, {measured['device']}"
    return "\n".join(
        [*lines, "", f"ViT-B/16 at 224 pixels, medians of {measured['rounds']} interleaved rounds; {where}."]
    )


def patching() -> str:
    """The ratios of `benchmarks.patching`: one cell of a sweep over one plain forward, attribution over one forward."""
    measured = json.loads((ROOT / "benchmarks" / "patching-cpu.json").read_text())
    lines = ["| time of | over that of | ratio |", "|---|---|---|"]
    units = {"head sweep": ", per head", "token sweep": ", per token"}
    lines += [
        f"| {line['what']}{units.get(line['what'], '')} | one {line['against']} | {line['value']:.2f} |"
        for line in measured["lines"]
        if line["unit"] == "x"
    ]
    return "\n".join(lines)


def chaos() -> str:
    """The table of `benchmarks.chaos`."""
    measured = json.loads((ROOT / "benchmarks" / "chaos.json").read_text())
    lines = [
        "| disturbed by | trials | stopped by it | labels then, all right | completed | uploads | uploaded twice |",
        "|---|---|---|---|---|---|---|",
        *(f"| {' | '.join(str(value) for value in line.values())} |" for line in measured["lines"]),
    ]
    return "\n".join([*lines, "", f"Seed {measured['seed']}, huggingface_hub {measured['huggingface_hub']}."])


def publishing() -> str:
    """The table of `benchmarks.publish`."""
    measured = json.loads((ROOT / "benchmarks" / "publish-cpu.json").read_text())
    lines = ["| delay of an answer | what | publish | loop | ratio |", "|---|---|---|---|---|"]
    lines += [
        f"| {1000 * line['delay']:.0f} ms | {line['what']} | {line['ours']:,.1f} | {line['loop']:,.1f} | "
        f"{line['ratio']:.2f} |"
        for line in measured["lines"]
    ]
    what = (
        f"{measured['checkpoints']} checkpoints of {measured['megabytes']:g} MB, medians of {measured['rounds']} rounds"
    )
    where = f"huggingface_hub {measured['huggingface_hub']}, {measured['device']}"
    return "\n".join([*lines, "", f"{what}; memory is what it grew by; {where}."])


def app() -> str:
    """The table of `benchmarks.app`."""
    measured = json.loads((ROOT / "benchmarks" / "app-cpu.json").read_text())
    scales = {"s": (1000, "ms"), "MB": (1, "MB"), "": (1, "")}
    lines = ["| what | measured | wanted |", "|---|---|---|"]
    for line in measured["lines"]:
        by, unit = scales[line["unit"]]
        target = line["target"]
        if line["unit"] == "s" and (line["value"] if target is None else target) >= 1:
            by, unit = 1, "s"
        value, wanted = ("" if x is None else f"{by * x:.3g} {unit}".rstrip() for x in (line["value"], target))
        lines.append(f"| {line['what']} | {value} | {f'at most {wanted}' if wanted else ''} |")
    where = f"Chromium, gradio {measured['gradio']}, torch {measured['torch']}, {measured['threads']} threads"
    return "\n".join([*lines, "", f"{where}, {measured['device']}."])


def features() -> str:
    """How fast `benchmarks.features` found optimised images to be, and what another mouse says of them."""
    measured = json.loads((ROOT / "benchmarks" / "features-cpu.json").read_text())
    line = measured["lines"][0]
    where = f"torch {measured['torch']}, timm {measured['timm']}, {measured['threads']} threads, {measured['device']}"
    what = line["what"].removeprefix("features: ")
    speed = (
        f"Time for {what} of an EfficientNet-Lite0, over that of {line['against']} on the same network: "
        f"{line['value']:.2f} ({where})."
    )
    found = json.loads((ROOT / "benchmarks" / "features-transfer.json").read_text())
    rows = [
        "| " + " | ".join([row["image"], *(f"{x:.2f} ({low:.2f} to {high:.2f})" for x, low, high in cells)]) + " |"
        for row in found["lines"]
        for cells in [(row["itself"], row["another"])]
    ]
    head = [
        f"Of the optima of the sprites mouse's {found['classes']} logits, {found['steps']} steps each, the share that "
        "is classified as its class, with intervals of 95 % over classes:",
        "",
        "| parameterisation | by the mouse | by a mouse of another seed |",
        "|---|---|---|",
    ]
    return "\n".join([speed, "", *head, *rows])


def stacking() -> str:
    """Whether stacked checkpoints pay: `benchmarks.stacking`."""
    measured = json.loads((ROOT / "benchmarks" / "stacking-cpu.json").read_text())
    images = list(measured["stacking"][0]["ratios"])
    rows = [[row["mouse"], *(f"{row['ratios'][count]:.2f}" for count in images)] for row in measured["stacking"]]
    lines = [_line([f"{measured['checkpoints']} checkpoints, by images", *images]), _line(["---"] * (1 + len(images)))]
    alone, drawn = (sorted(row[key] for row in measured["shares"]) for key in ("share", "with plots"))
    names = ", ".join(f"`{row['analysis']}`" for row in measured["shares"])
    return "\n".join(
        [
            *lines,
            *map(_line, rows),
            "",
            f"Processor time of a stack over that of a loop, one thread, medians of {measured['rounds']} rounds. With "
            f"{measured['few']} images of the digits mouse, of the time of `prisma analyze --revisions all` "
            f"{100 * alone[0]:.0f} to {100 * alone[-1]:.0f} % are the analyses themselves ({names}), and the rest is "
            "reading weights and writing files, so a stack could save half of that share at most. With a plot for "
            f"each checkpoint it would be {100 * drawn[0]:.0f} to {100 * drawn[-1]:.0f} %, so it draws none "
            f"(torch {measured['torch']}, {measured['device']}).",
        ]
    )


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


BLOCKS: Mapping[str, Callable[[], str]] = {
    "results": results,
    "speed": speed,
    "patching": patching,
    "chaos": chaos,
    "publish": publishing,
    "app": app,
    "features": features,
    "stacking": stacking,
}


def render(page: str) -> str:
    """A page with its blocks written again."""
    for name, table in BLOCKS.items():
        block = re.compile(rf"(?<=<!-- {name}:begin )([^>]*-->\n).*?(?=<!-- {name}:end -->)", re.DOTALL)
        if found := block.search(page):
            page = f"{page[: found.start()]}{found[1]}{table()}\n{page[found.end() :]}"
    return page


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(render(path.read_text()))
