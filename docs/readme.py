"""Write the README's table of results from `hub_cards/*/results.json`, the only source of its numbers."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
BLOCK = re.compile(r"(<!-- results:begin [^>]*-->\n).*?(<!-- results:end -->)", re.DOTALL)


def table() -> str:
    """One row per mouse whose results are in the repository."""
    lines = ["| mouse | test accuracy | on | parameters | trained with |", "|---|---|---|---|---|"]
    for path in sorted((ROOT / "hub_cards").glob("*/results.json")):
        results = json.loads(path.read_text())
        test = next(row for row in results["results"] if row["name"] == "test accuracy")
        cells = (
            f"[{results['recipe']}](hub_cards/{path.parent.name}/README.md)",
            f"{test['value']:.3f}",
            f"{test['n']} test images",
            f"{results['parameters']:,}",
            f"`{results['command']}`",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def render(readme: str) -> str:
    """The README with its results block made anew."""
    return BLOCK.sub(lambda match: f"{match[1]}{table()}\n{match[2]}", readme)


if __name__ == "__main__":
    README.write_text(render(README.read_text()))
