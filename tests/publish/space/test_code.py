"""The code and the requirements of a Space."""

import re
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import prisma
from prisma import PrismaError
from prisma.publish.space import code
from prisma.publish.space.code import ZERO_TORCH, installed, package_files, python_version, requirements

ROOT = Path(prisma.__file__).parents[1]


def test_the_code_is_every_file_of_both_packages_but_the_mice() -> None:
    found = dict(package_files())
    assert found["prisma/vit.py"].read_bytes() == (ROOT / "prisma" / "vit.py").read_bytes()
    for needed in ("prisma/pretrained/verified.json", "prisma/view/browser/assets/core.js", "prisma_app/space.py"):
        assert needed in found
    assert {Path(name).suffix for name in found} == code.ENDINGS | {""}
    assert [name for name in found if "__pycache__" in name or name.startswith("prisma/mice/")] == []
    source = [p for p in (ROOT / "prisma").rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    expected = {p.relative_to(ROOT).as_posix() for p in source if "mice" not in p.parts}
    assert {name for name in found if name.startswith("prisma/")} == expected
    assert "MIT License" in found["LICENSE"].read_text()


def test_a_link_in_a_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "linked_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "b.py").symlink_to(tmp_path / "secret.py")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(code, "PACKAGES", ("linked_package",))
    with pytest.raises(PrismaError, match=r"expected files in the package linked_package; found a link"):
        list(package_files())
    monkeypatch.setattr(code, "PACKAGES", ("absent_package",))
    with pytest.raises(PrismaError, match=r"expected the package absent_package as a folder of files; found none"):
        list(package_files())


def test_requirements_are_the_installed_versions_and_torch_for_cpus() -> None:
    first, *lines = requirements(None).splitlines()
    assert first == "--extra-index-url https://download.pytorch.org/whl/cpu"
    wanted = {r.name: str(r.specifier) for r in map(Requirement, lines)}
    assert {"torch", "numpy", "einops", "safetensors", "pillow", "huggingface-hub"} <= set(wanted)
    assert "gradio" not in wanted and "prisma-vit" not in wanted and "timm" not in wanted
    for name, specifier in wanted.items():
        assert specifier == f"=={version(name).partition('+')[0]}"


def test_zero_gpu_has_a_torch_and_a_python_that_it_supports() -> None:
    (torch,) = re.findall(r"torch==(\S+)", requirements("zero-a10g"))
    assert torch in ZERO_TORCH and "index" not in requirements("zero-a10g")
    assert (python_version("zero-a10g"), python_version(None).count(".")) == ("3.12.12", 1)


def test_a_package_that_is_not_there_is_named() -> None:
    with pytest.raises(PrismaError, match=r"expected the package no-such-thing, which the app needs"):
        installed("no-such-thing")
