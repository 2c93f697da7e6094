"""Imports run one way, without cycles, and the core loads nothing that is optional."""

import ast
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = (  # a module may import those of earlier layers, and of its own folder
    ("errors",),
    ("bounds", "filesystem", "launched", "progress"),
    ("fields", "numbers", "reading", "repo_names", "headlines"),
    ("sites", "files", "config", "contents", "downloads"),
    ("selection", "plain", "pixels", "describe"),
    ("edits", "layers"),
    ("attention",),
    ("blocks",),
    ("divided", "tower"),
    ("vit", "text"),
    ("inventory", "outline"),
    ("metrics", "circuits", "checkpoint"),
    ("runs", "run_folder", "slope"),
    ("repository", "batching", "ledger", "analysis.statistics"),
    ("data",),
    ("pretrained",),
    ("loaded", "view"),
    ("analysis.result",),
    ("analysis.border", "analysis.fewer_tokens"),
    ("analysis.attention", "analysis.lens"),
    ("analysis.readings",),
    ("analysis.top_images",),
    ("analysis.clip_dissect",),
    ("analysis.class_space",),
    ("analysis.weights",),
    ("analysis.attribution",),  # it scores the maps of all others
    ("analysis.patching",),
    ("analysis.circuits", "analysis.directions"),
    ("analysis.modularity",),  # it removes communities by ablation
    ("features",),
    ("train",),  # it scores the heads of every checkpoint as the analysis does
    ("study", "recipes", "smallest", "sparse"),
    ("editing",),
    ("language",),
    ("mechanisms",),
    ("publish",),
    ("cli",),
    ("__main__",),
    ("prisma_app",),
)
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}
PACKAGES = {"prisma": ROOT / "prisma", "prisma_app": ROOT / "app" / "prisma_app"}
FILES = sorted(path for folder in PACKAGES.values() for path in folder.rglob("*.py"))
OPTIONAL = {"timm", "transformers", "open_clip", "gradio", "huggingface_hub", "datasets", "wandb", "matplotlib"} | {
    "captum", "sklearn", "networkx", "PIL", "jinja2", "accelerate", "typer", "torchvision",
}  # fmt: skip


def module_name(path: Path) -> str:
    folder = next(folder for folder in PACKAGES.values() if folder in path.parents)
    return ".".join(path.relative_to(folder.parent).with_suffix("").parts).removesuffix(".__init__")


def part(module: str) -> str:
    """`prisma.train.loop` -> `train`, `prisma.analysis.lens.logit_lens` -> `analysis.lens`, `prisma_app.page` as is."""
    names = module.split(".")
    if names[0] != "prisma" or len(names) == 1:
        return names[0]
    return ".".join(names[1:3]) if names[1] == "analysis" else names[1]


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    return list(ast.walk(tree_of(path)))


@cache
def imports(path: Path) -> list[tuple[str, ast.stmt]]:
    """Modules of this project that a file imports, except those for type checkers and the facade's own list."""
    typing_only = {
        id(node)
        for block in nodes_of(path)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found: list[tuple[str, ast.stmt]] = []
    for node in nodes_of(path):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found += [(alias.name, node) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.append((node.module or "", node))
    return [(name, node) for name, node in found if name.split(".")[0] in PACKAGES]


def test_imports_point_to_earlier_layers() -> None:
    wrong = []
    for path in FILES:
        here = module_name(path)
        for name, node in imports(path) if here != "prisma" else []:  # the facade resolves names on first use
            there, where = part(name), f"{path}:{node.lineno} imports {name}"
            if there not in RANK and name != "prisma":
                wrong.append(f"{where}, which is in no layer")
            if there != part(here) and RANK.get(there, -1) >= RANK[part(here)]:
                wrong.append(f"{where} against the direction")
            if name == "prisma" and ast.unparse(node) != "from prisma import __version__":
                wrong.append(f"{where}, the facade, which nobody inside may")
    assert not wrong, "\n".join(wrong)


def test_no_cycles() -> None:
    known = {module_name(path) for path in FILES}
    graph = {module_name(path): {name for name, _ in imports(path) if name in known} for path in FILES}
    list(TopologicalSorter(graph).static_order())  # raises CycleError


def test_own_package_is_imported_at_the_top() -> None:
    wrong = []
    for path in (path for path in FILES if path.parent.name != "cli"):
        for function in (node for node in nodes_of(path) if isinstance(node, ast.FunctionDef)):
            hidden = [node for node in ast.walk(function) if isinstance(node, ast.ImportFrom)]
            names = [node.module for node in hidden if node.module and node.module.split(".")[0] in PACKAGES]
            wrong += [f"{path}: {function.name} imports {names} inside"] if names else []
    assert not wrong, "\n".join(wrong)


def test_files_and_functions_stay_small() -> None:
    limit, wrong = 300, []
    for path in FILES:
        if len(path.read_text().splitlines()) > limit:
            wrong.append(f"{path} is longer than {limit} lines: split it by concept")
        for node in (node for node in nodes_of(path) if isinstance(node, ast.FunctionDef)):
            lines = (node.end_lineno or 0) - node.lineno + 1
            wrong += [f"{path}:{node.lineno} {node.name} has {lines} lines"] if lines > 60 else []
    assert not wrong, "\n".join(wrong)


def test_tests_mirror_the_package() -> None:
    missing = []
    for path in FILES:
        if path.name == "__init__.py":
            continue
        package, *folders, name = module_name(path).split(".")
        tests = ROOT / "tests" / ("app" if package == "prisma_app" else "")
        test = tests.joinpath(*folders, f"test_{name}.py")
        if not test.exists():
            missing.append(str(test.relative_to(ROOT)))
    assert not missing, f"no tests for: {missing}"


def test_public_names_load_only_the_core() -> None:
    code = "import sys, prisma; [getattr(prisma, n) for n in prisma.__all__]; print(*sys.modules)"
    loaded = set(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=240
        ).stdout.split()
    )
    assert not loaded & OPTIONAL
    assert "prisma.vit" in loaded


def test_every_public_name_exists() -> None:
    import prisma

    assert all(hasattr(prisma, name) for name in prisma.__all__)
    assert set(prisma.__all__) == {name for names in prisma._HOME.values() for name in names}
    assert set(dir(prisma)) == {*prisma.__all__, "__version__"}  # what a notebook completes
    with pytest.raises(AttributeError, match="module 'prisma' has no attribute 'vit_b'"):
        _ = prisma.vit_b
