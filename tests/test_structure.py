"""Imports run one way, without cycles, and the core loads nothing that is optional."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = (  # a module may import those of earlier layers, and of its own folder
    ("errors",),
    ("sites", "files", "config"),
    ("edits", "layers"),
    ("attention",),
    ("blocks",),
    ("divided", "tower"),
    ("vit", "text"),
    ("inventory", "outline"),
    ("metrics", "circuits", "checkpoint"),
    ("runs",),
    ("repository", "batching"),
    ("data",),
    ("pretrained",),
    ("loaded", "view"),
    ("train", "analysis.result"),
    ("analysis.attention", "analysis.attribution", "analysis.lens", "analysis.weights"),
    ("analysis.patching",),
    ("analysis.circuits",),
    ("study", "recipes"),
    ("publish",),
    ("cli",),
    ("app",),
)
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}
FILES = sorted(p for folder in ("prisma", "app") for p in (ROOT / folder).rglob("*.py"))
OPTIONAL = {"timm", "transformers", "open_clip", "gradio", "huggingface_hub", "datasets", "wandb", "matplotlib"} | {
    "sklearn", "PIL", "jinja2", "accelerate", "typer", "torchvision",
}  # fmt: skip


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def part(module: str) -> str:
    """`prisma.train.loop` -> `train`, `prisma.analysis.lens.logit_lens` -> `analysis.lens`, `app.lens` -> `app`."""
    names = module.split(".")
    if names[0] != "prisma" or len(names) == 1:
        return names[0]
    return ".".join(names[1:3]) if names[1] == "analysis" else names[1]


def imports(path: Path) -> list[tuple[str, ast.stmt]]:
    """Modules of this project that a file imports, except those for type checkers and the facade's own list."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found: list[tuple[str, ast.stmt]] = []
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found += [(alias.name, node) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.append((node.module or "", node))
    return [(name, node) for name, node in found if name.split(".")[0] in ("prisma", "app")]


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_point_to_earlier_layers(path: Path) -> None:
    here = module_name(path)
    if here == "prisma":
        return  # the facade: names resolved on first use
    for name, node in imports(path):
        there = part(name)
        assert there in RANK or name == "prisma", f"{path}:{node.lineno} imports {name}, which is in no layer"
        backward = there != part(here) and RANK.get(there, -1) >= RANK[part(here)]
        assert not backward, f"{path}:{node.lineno} imports {name} against the direction"
        assert name != "prisma" or ast.unparse(node) == "from prisma import __version__", (
            f"{path}:{node.lineno} imports the facade, which nobody inside may"
        )


def test_no_cycles() -> None:
    known = {module_name(path) for path in FILES}
    graph = {module_name(path): {name for name, _ in imports(path) if name in known} for path in FILES}
    list(TopologicalSorter(graph).static_order())  # raises CycleError


@pytest.mark.parametrize("path", [p for p in FILES if p.parent.name != "cli"], ids=module_name)
def test_own_package_is_imported_at_the_top(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        hidden = [node for node in ast.walk(function) if isinstance(node, ast.ImportFrom)]
        names = [node.module for node in hidden if node.module and node.module.split(".")[0] in ("prisma", "app")]
        assert not names, f"{path}: {function.name} imports {names} inside"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    limit = 300
    assert len(text.splitlines()) <= limit, f"{path} is longer than {limit} lines: split it by concept"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= 60, f"{path}:{node.lineno} {node.name} has {lines} lines"


def test_tests_mirror_the_package() -> None:
    missing = []
    for path in FILES:
        relative = path.relative_to(ROOT)
        if path.name == "__init__.py":
            continue
        parts = relative.parts[1:] if relative.parts[0] == "prisma" else relative.parts
        test = ROOT.joinpath("tests", *parts[:-1], f"test_{parts[-1]}")
        if not test.exists():
            missing.append(str(test.relative_to(ROOT)))
    assert not missing, f"no tests for: {missing}"


def test_public_names_load_only_the_core() -> None:
    code = "import sys, prisma; [getattr(prisma, n) for n in prisma.__all__]; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert not loaded & OPTIONAL
    assert "prisma.vit" in loaded


def test_every_public_name_exists() -> None:
    import prisma

    assert all(hasattr(prisma, name) for name in prisma.__all__)
    assert set(prisma.__all__) == {name for names in prisma._HOME.values() for name in names}
