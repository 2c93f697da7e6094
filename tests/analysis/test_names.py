"""One name per analysis: its module, function, result class and `metadata["analysis"]` agree."""

import ast
import inspect
import pkgutil
import subprocess
import sys
from importlib import import_module
from types import FunctionType

import pytest

import prisma.analysis
from prisma.analysis.result import Result

MODULES = [
    name for _, name, folder in pkgutil.walk_packages(prisma.analysis.__path__, "prisma.analysis.") if not folder
]
SECONDARY = {  # function -> why its name is not that of its module or result
    "attribute_network": "attribute, of a network of another library",
    "cluster_lesions_network": "cluster_lesions, of a network of another library",
    "map_scores": "one of three checks of a map, in one module",
    "map_sanity": "as map_scores",
    "map_sensitivity": "as map_scores",
    "lens_segmentation": "class_maps and segmentation in one call: the result is that of segmentation",
    "read_tuned_lens": "reads a result from a folder",
    "train_tuned_lens": "trains what tuned_lens applies: TunedLens holds the translators, and so does its metadata",
    "tuned_lens": "applies a TunedLens: the result is a LogitLens with another readout",
    "patch_sets": "several places patched at once, beside activation_patching: the result is a PatchSets",
    "edge_result": "makes the EdgeAttribution of edge_attribution from passes that attribution_patching shares",
    "check_circuit": "measures a given circuit: the result is that of circuit_discovery",
}


def functions() -> dict[str, FunctionType]:
    """Public functions that return a result, by name."""
    found = {}
    for module in map(import_module, MODULES):
        for name, function in vars(module).items():
            own = isinstance(function, FunctionType) and function.__module__ == module.__name__
            alias = own and function.__name__ != name  # `patch` is short for activation_patching
            if own and not alias and not name.startswith("_") and _result(function) is not None:
                found[name] = function
    return found


def _result(function: FunctionType) -> type[Result] | None:
    returned = function.__annotations__.get("return")
    return returned if isinstance(returned, type) and issubclass(returned, Result) else None


def metadata_names(function: FunctionType) -> set[str]:
    """The texts that stand after `"analysis":` in a function, or else in its module."""
    own = _literals(inspect.getsource(inspect.unwrap(function)))
    return own or _literals(inspect.getsource(import_module(function.__module__)))


def _literals(source: str) -> set[str]:
    pairs = [
        pair
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Dict)
        for pair in zip(node.keys, node.values, strict=True)
    ]
    return {
        value.value
        for key, value in pairs
        if isinstance(key, ast.Constant) and key.value == "analysis" and isinstance(value, ast.Constant)
    }


def camel_case(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


def test_module_function_result_and_metadata_agree() -> None:
    for name, function in functions().items():
        if name in SECONDARY:
            continue
        result = _result(function)
        assert result is not None, name
        assert function.__module__.rpartition(".")[2] == name
        assert result.__name__ == camel_case(name)
        assert result.__module__ == function.__module__, name
        assert metadata_names(function) == {name}


def test_every_exception_is_needed() -> None:
    found = functions()
    assert set(SECONDARY) <= set(found)
    for name in SECONDARY:
        function, result = found[name], _result(found[name])
        assert result is not None
        names = metadata_names(function)
        agrees = (
            function.__module__.rpartition(".")[2] == name and result.__name__ == camel_case(name) and names == {name}
        )
        assert not agrees, f"{name} needs no exception"
        assert names, f"{name} has no metadata that names an analysis"


def test_the_analyses_are_found() -> None:
    assert {"activation_patching", "circuit_discovery", "logit_lens", "class_values", "rollout"} <= set(functions())
    assert _literals('{"analysis": "one", **{"analysis": "two"}, "other": "three"}') == {"one", "two"}


def test_folders_are_imported_when_they_are_named() -> None:
    said = "import prisma; print(prisma.analysis.modularity.modularity.__name__, prisma.analysis.top_images.__name__)"
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["modularity", "prisma.analysis.top_images"]
    with pytest.raises(AttributeError, match=r"module 'prisma.analysis' has no attribute 'modular'"):
        prisma.analysis.modular  # noqa: B018
    assert not hasattr(prisma.analysis, "__wrapped__")
