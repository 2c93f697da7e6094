"""The wheel, installed without this repository, and the demo that it runs: made once, for all tests of a session."""

import json
import os
import site
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import made_once

ROOT = Path(__file__).parents[2]
LIMIT = 300  # seconds for one command, on a busy machine
RUN_EACH = """
import json, sys
from prisma.cli import main
commands = json.loads(sys.argv[1])
for sys.argv in commands:
    try:
        code = main()
    except SystemExit as end:
        code = end.code
    if code not in (None, 0):
        sys.exit(f"{sys.argv}: {code}")
print(len(commands), "commands ran")
"""  # in one process, as importing torch takes seconds; the `demo` fixture runs the installed command itself


@dataclass(frozen=True)
class Installed:
    """An environment in which the wheel is installed."""

    wheel: Path
    environment: Path

    def command(self, name: str) -> Path:
        return self.environment / ("Scripts" if os.name == "nt" else "bin") / name

    def run(self, folder: Path, name: str, *arguments: str) -> str:
        """What a command prints, run in a folder."""
        done = subprocess.run(
            [self.command(name), *arguments], cwd=folder, env=outside(), capture_output=True, text=True, timeout=LIMIT
        )
        assert done.returncode == 0, f"{name} {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def each(self, folder: Path, *commands: Sequence[str]) -> str:
        """What commands of `prisma` print, one after the other, run in a folder by one process."""
        out = self.run(folder, "python", "-c", RUN_EACH, json.dumps(commands))
        end = f"{len(commands)} commands ran\n"
        assert out.endswith(end), out
        return out.removesuffix(end)


def outside() -> dict[str, str]:
    """The environment variables, without those that make this repository importable."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


@dataclass(frozen=True)
class Demo:
    """What `prisma demo --no-app` left in an empty folder, and what it printed."""

    folder: Path
    stdout: str


def _install(made: Path) -> None:
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


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    made = made_once(tmp_path_factory, "wheel", _install)
    return Installed(next(made.glob("*.whl")), made / "environment")


@pytest.fixture(scope="session")
def demo(installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    def run(folder: Path) -> None:
        folder.mkdir()
        (folder / "stdout.txt").write_text(installed.run(folder, "prisma", "demo", "--no-app"))

    folder = made_once(tmp_path_factory, "demo", run)
    return Demo(folder, (folder / "stdout.txt").read_text())
