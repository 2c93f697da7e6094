"""The wheel, installed without this repository: what it holds, and the commands that people run first."""

import json
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

from tests.e2e.conftest import LIMIT, ROOT, Demo, Installed, outside

PACKAGES = {"prisma": ROOT / "prisma", "prisma_app": ROOT / "app" / "prisma_app"}


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


def test_neither_package_comes_from_this_repository(installed: Installed, tmp_path: Path) -> None:
    names = ("app", "hub_cards", "tests", "tools")
    code = f"""import importlib.util as u, json
found = {{name: u.find_spec(name) for name in {("prisma", "prisma_app", "torch", *names)}}}
print(json.dumps({{name: spec and spec.origin for name, spec in found.items()}}))"""
    found = json.loads(installed.run(tmp_path, "python", "-c", code))
    for name in PACKAGES:
        assert Path(found[name]).is_relative_to(installed.environment)
    assert found["torch"] and [name for name in names if found[name]] == [], "these can be imported"


def test_publish_and_app_work_from_any_folder(installed: Installed, demo: Demo, tmp_path: Path) -> None:
    shutil.copytree(demo.folder, tmp_path, symlinks=True, dirs_exist_ok=True)
    publishing = ["prisma", "publish", "runs/digits", "lab/again", "--hub", "hub"]
    said = installed.each(tmp_path, publishing, ["prisma", "mice"], ["prisma", "models"])
    assert "digits" in said and "timm Eva" in said, "the data that comes with the package is not found"
    published = tmp_path / "hub" / "models--lab--again"
    commit = (published / "refs" / "main").read_text().strip()
    assert "lab/again" in (published / "snapshots" / commit / "README.md").read_text()
    with served(installed, tmp_path, "--hub", "hub", "--model", "lab/again") as url:
        page, models = (
            urlopen(f"{url.rstrip('/')}/prisma/{name}", timeout=LIMIT).read().decode() for name in ("page.js", "models")
        )
    for figure in ("Attention", "Lens", "Patching", "Training", "Decompose"):
        assert f"class {figure} " in page, f"the page lacks the script of {figure}"
    for model in ("lab/again", "prisma/digits"):
        assert model in models


@contextmanager
def served(installed: Installed, folder: Path, *options: str) -> Iterator[str]:
    """The address that `prisma app` prints, while it serves; it is stopped by SIGTERM, and ends cleanly."""
    with subprocess.Popen(
        [installed.command("prisma"), "app", *options],
        cwd=folder,
        env={**outside(), "GRADIO_TEMP_DIR": str(folder / "gradio")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as server:
        try:
            assert server.stdout is not None
            said = server.stdout.readline()
            assert "Prisma is open at" in said
            yield said.split()[-1]
            server.terminate()
            out, err = server.communicate(timeout=LIMIT)  # ends when no process holds the pipes any more
            assert (server.returncode, out) == (0, "")
            assert "Traceback" not in err
            left = subprocess.run(["pgrep", "-s", str(server.pid)], capture_output=True, text=True, timeout=LIMIT)
            assert left.stdout == "", "the app left processes behind"
        finally:
            server.kill()
