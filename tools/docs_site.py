"""The pages of the documentation site that are made from other files: mkdocs runs this as a hook (see mkdocs.yml).

README.md becomes the first page; the changelog, the guide for contributors and each mouse's card become pages; and each
module of the package becomes a page of the API reference, which mkdocstrings fills with signatures and docstrings.
"""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "prisma"
TOP = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")  # files of the repository's root that become pages
GROUPS = {  # folder of the package -> heading in the API reference, in the order of the navigation
    "": "Core",
    "analysis": "Analyses: results",
    "analysis/patching": "Analyses: patching",
    "analysis/circuits": "Analyses: circuits",
    "analysis/attribution": "Analyses: attribution",
    "analysis/lens": "Analyses: lenses",
    "analysis/class_space": "Analyses: class space",
    "analysis/directions": "Analyses: directions and subspaces",
    "analysis/attention": "Analyses: attention",
    "analysis/weights": "Analyses: weights",
    "analysis/modularity": "Analyses: modularity",
    "study": "Analyses over a data set",
    "view/figures": "Figures",
    "pretrained": "Pretrained models",
    "pretrained/timm": "Pretrained models: timm",
    "pretrained/transformers": "Pretrained models: transformers",
    "pretrained/open_clip": "Pretrained models: open_clip",
    "data": "Tasks and pictures",
    "features": "Feature visualisation",
    "sparse": "Sparse coders",
    "editing": "Editing",
    "language": "Language models",
    "train": "Training",
    "mechanisms": "Mechanism cards",
    "publish": "Publishing",
}


def modules() -> dict[str, list[Path]]:
    """Heading of the API reference -> the modules below it that define a public name."""
    found = {heading: sorted((PACKAGE / folder).glob("[a-z]*.py")) for folder, heading in GROUPS.items()}
    found |= {
        heading: [PACKAGE / folder / "__init__.py", *found[heading]]
        for folder, heading in GROUPS.items()
        if folder and (PACKAGE / folder).is_dir()
    }
    kept = {heading: [path for path in paths if public(path)] for heading, paths in found.items()}
    return {heading: paths for heading, paths in kept.items() if paths}


def public(path: Path) -> list[str]:
    """Names of the public functions and classes that a module defines."""
    definitions = (ast.FunctionDef, ast.ClassDef)
    return [x.name for x in ast.parse(path.read_text()).body if isinstance(x, definitions) and x.name[0] != "_"]


def dotted(path: Path) -> str:
    """prisma/analysis/lens/logit_lens.py -> prisma.analysis.lens.logit_lens"""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def exported() -> Iterator[tuple[str, str]]:
    """(public name of `prisma`, module that defines it), read from the imports that `prisma/__init__.py` lists."""
    for node in ast.walk(ast.parse((PACKAGE / "__init__.py").read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("prisma."):
            yield from ((alias.name, str(node.module)) for alias in node.names)


def first_sentence(module: str, name: str) -> str:
    """The first paragraph of a docstring, up to its first full stop."""
    path = ROOT / f"{module.replace('.', '/')}.py"
    path = path if path.exists() else path.with_suffix("") / "__init__.py"
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            text = (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ").replace("|", "\\|")
            return re.split(r"(?<=[.?!]) (?=[A-Z])", text)[0]
    return ""


def api_index() -> str:
    """The page that lists every name that `prisma` exports."""
    lines = [
        "# API reference\n",
        "Everything here can be used as `prisma.NAME` after `import prisma`; a name loads its module on first use.",
        "The pages of the modules, on the left, also have what stands beside these names.\n",
        "| name | what it is |",
        "|---|---|",
        *(f"| [`{name}`][{module}.{name}] | {first_sentence(module, name)} |" for name, module in sorted(exported())),
    ]
    return "\n".join(lines) + "\n"


def card(folder: Path) -> str:
    """A mouse's card without its front matter, as a page in `mice/`."""
    text = re.sub(r"\A---\n.*?\n---\n", "", (folder / "README.md").read_text(), flags=re.DOTALL)

    def link(match: re.Match[str]) -> str:  # a file that only the published repository holds is named without a link
        text, target = match.groups()
        return f"[{text}]({folder.name}/{target})" if (folder / target).exists() else text

    return re.sub(r"\[([^\]]*)\]\(([\w./]+)\)", link, text)


def gallery() -> str:
    """The page that shows all mice, with their numbers and how they learned."""
    parts = [
        "# Cards of mice\n\nA mouse is a small vision transformer, trained on a task whose answer is known, with every "
        'checkpoint of its training. `prisma train NAME` trains one; `prisma.load("mice/NAME")` loads those whose '
        "weights come with the package.\n"
    ]
    for folder in mice():
        name, found = folder.name, json.loads((folder / "results.json").read_text())
        test = next(row for row in found["results"] if row["split"] == "test")  # the first: how well it does
        kind = test["name"].removeprefix("test ")
        numbers = f"Test {kind} {test['value']:.3f} on {test['n']:,} images, {found['parameters']:,} parameters."
        curve = f"![{kind.capitalize()} of {name} by training step]({name}/curves/{kind}.png){{width=480}}"
        parts.append(f"## [{name}]({name}.md)\n\n{what_it_does(folder)} {numbers}\n\n{curve}\n")
    return "\n".join(parts)


def mice() -> list[Path]:
    """The folders of the mice's cards."""
    return sorted(path.parent for path in (ROOT / "hub_cards").glob("*/README.md"))


def what_it_does(folder: Path) -> str:
    """What a mouse does: the first clause under that heading of its card, without the list of classes."""
    text = (folder / "README.md").read_text().partition("## What it does\n\n")[2].partition("\n\n")[0]
    return text.partition(":")[0].replace("\n", " ").rstrip(".") + "."


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the API part of the navigation."""
    pages: list[Any] = ["api/index.md"]
    for heading, paths in modules().items():
        pages.append({heading: [{dotted(path).rpartition(".")[2]: f"api/{dotted(path)}.md"} for path in paths]})
    cards = ["mice/index.md", *(f"mice/{folder.name}.md" for folder in mice())]
    for part in config.nav or []:
        if "API" in part:
            part["API"] = pages
        for section in part.get("Models", []):
            if isinstance(section, dict) and "Mice" in section:
                section["Mice"] = cards
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""

    def add(name: str, text: str) -> None:
        files.append(File.generated(config, name, content=text))

    home = (ROOT / "README.md").read_text()
    home = re.sub(r"\]\(hub_cards/([\w-]+)/README\.md\)", r"](mice/\1.md)", home).replace("](docs/", "](")
    for name in TOP:
        home = home.replace(f"]({name})", f"]({name.lower()})")
        add(name.lower(), (ROOT / name).read_text().replace("](docs/", "]("))
    add("index.md", home)
    add("mice/index.md", gallery())
    for folder in mice():
        add(f"mice/{folder.name}.md", card(folder))
        for path in sorted([*folder.glob("*.json"), *folder.glob("curves/*.png")]):
            files.append(File.generated(config, f"mice/{path.relative_to(folder.parent)}", abs_src_path=str(path)))
    add("api/index.md", api_index())
    for path in (path for paths in modules().values() for path in paths):
        add(f"api/{dotted(path)}.md", f"::: {dotted(path)}\n")
    return files
