"""The wheel, installed without this repository: what it holds, and the commands that people run first."""

import os
import shutil
import site
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {"prisma": ROOT / "prisma", "prisma_app": ROOT / "app" / "prisma_app"}
LIMIT = 300  # seconds for one command, on a busy machine


@dataclass(frozen=True)
class Installed:
    """An environment in which the wheel is installed, and an empty folder to work in."""

    wheel: Path
    environment: Path
    folder: Path

    def command(self, name: str) -> Path:
        return self.environment / ("Scripts" if os.name == "nt" else "bin") / name

    def run(self, name: str, *arguments: str) -> str:
        done = subprocess.run(
            [self.command(name), *arguments],
            cwd=self.folder,
            env=outside(),
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def outside() -> dict[str, str]:
    """The environment variables, without those that make this repository importable."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    made = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(made)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=LIMIT)
    (wheel,) = made.glob("*.whl")
    environment = made / "environment"
    venv.create(environment, with_pip=False, symlinks=os.name != "nt")
    paths = {"base": str(environment), "platbase": str(environment)}
    packages = Path(sysconfig.get_path("purelib", "venv", paths))
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    python = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    subprocess.run([*install[:3], "--python", python, *install[3:], wheel], check=True, timeout=LIMIT, env=outside())
    # The dependencies are those of this environment. The .pth files in a folder that a .pth file adds are not read, so
    # the editable installation of this repository there stays unknown.
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    folder = made / "work"
    folder.mkdir()
    return Installed(wheel, environment, folder)


def test_the_wheel_holds_two_packages_with_every_file_of_theirs(installed: Installed) -> None:
    names = zipfile.ZipFile(installed.wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == set(PACKAGES)
    for package, folder in PACKAGES.items():
        files = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        expected = {f"{package}/{path.relative_to(folder).as_posix()}" for path in files}
        assert expected <= set(names)
        assert {Path(name).suffix for name in names if name.startswith(f"{package}/")} >= {".py"}
    for needed in ("prisma/py.typed", "prisma/pretrained/verified.json", "prisma/mice/digits/model.safetensors"):
        assert needed in names


def test_neither_package_comes_from_this_repository(installed: Installed) -> None:
    code = "import prisma, prisma_app, torch; print(prisma.__file__, prisma_app.__file__)"
    for found in installed.run("python", "-c", code).split():
        assert Path(found).is_relative_to(installed.environment)
    for name in ("app", "hub_cards", "tests", "tools"):
        found = installed.run("python", "-c", f"import importlib.util as u; print(u.find_spec({name!r}))")
        assert found.strip() == "None", f"{name} can be imported"


def test_demo_publish_and_app_work_from_any_folder(installed: Installed) -> None:
    assert "Published prisma/digits" in installed.run("prisma", "demo", "--no-app")
    installed.run("prisma", "publish", "runs/digits", "lab/again", "--hub", "hub")
    published = installed.folder / "hub" / "models--lab--again"
    commit = (published / "refs" / "main").read_text().strip()
    assert "lab/again" in (published / "snapshots" / commit / "README.md").read_text()
    with served(installed, "--hub", "hub", "--model", "lab/again") as url:
        page = urlopen(url, timeout=LIMIT).read().decode()
    for viewer in ("Attention", "Lens", "Effects", "Images", "Steps"):
        assert f"class {viewer}" in page, f"the page lacks the script of {viewer}"
    for title in ("Attention", "Logit lens", "Patching", "lab/again", "prisma/digits"):
        assert title in page


@contextmanager
def served(installed: Installed, *options: str) -> Iterator[str]:
    """The address that `prisma app` prints, while it serves."""
    with subprocess.Popen(
        [installed.command("prisma"), "app", *options],
        cwd=installed.folder,
        env={**outside(), "GRADIO_TEMP_DIR": str(installed.folder / "gradio")},
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().split()[-1]
            server.terminate()
            assert server.wait(timeout=LIMIT) == 0
        finally:
            server.kill()
    shutil.rmtree(installed.folder / "gradio", ignore_errors=True)


def test_the_data_that_comes_with_the_package_is_found(installed: Installed) -> None:
    assert "digits" in installed.run("prisma", "mice")
    assert "vit" in installed.run("prisma", "models")
