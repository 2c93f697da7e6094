"""The folder `app/` as a Hugging Face Space: its front matter, its requirements, and what it starts."""

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from urllib.request import urlopen

import yaml
from packaging.requirements import Requirement

from prisma import __version__
from tests.app.conftest import DIGITS, GLYPHS
from tests.app.visitor import STOPPED

SPACE = Path(__file__).parents[2] / "app"


def test_the_front_matter_starts_this_app_with_this_gradio() -> None:
    _, front, _ = (SPACE / "README.md").read_text().split("---\n", 2)
    facts = yaml.safe_load(front)
    assert (facts["sdk"], facts["sdk_version"]) == ("gradio", version("gradio"))
    assert (SPACE / facts["app_file"]).is_file()
    assert (facts["python_version"], facts["license"]) == ("3.12", "mit")
    assert len(facts["short_description"]) <= 60  # longer ones are refused by the Hugging Face Hub


def test_the_requirements_are_this_version_and_leave_gradio_to_the_front_matter() -> None:
    lines = (SPACE / "requirements.txt").read_text().split()
    (prisma,) = map(Requirement, lines)
    assert (prisma.name, prisma.extras) == ("prisma-vit", {"app"})
    assert prisma.specifier.contains(__version__)


def test_a_copy_of_the_folder_serves_its_hub(lab: Path, tmp_path: Path) -> None:
    space = tmp_path / "space"
    shutil.copytree(SPACE, space, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(lab, space / "hub", symlinks=True)
    environment = os.environ | {"GRADIO_TEMP_DIR": str(tmp_path / "gradio"), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, "app.py"], cwd=space, env=environment, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            found = None
            while found is None and (line := server.stdout.readline()):
                found = re.search(r"http://\S+", line)
            assert found, "app.py ended before it served"
            page = urlopen(found[0], timeout=STOPPED).read().decode()
        finally:
            server.kill()
    assert DIGITS in page
    assert GLYPHS in page


def test_a_variable_that_names_no_model_is_one_sentence(tmp_path: Path) -> None:
    shutil.copy(SPACE / "app.py", tmp_path)
    environment = {
        **os.environ,
        "PRISMA_MODEL": "a--b/x",
        "PYTHONPATH": os.pathsep.join([str(SPACE.parent), str(SPACE)]),
    }
    found = subprocess.run(
        [sys.executable, "app.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert found.returncode == 1 and "which has '--'" in found.stderr
    assert found.stderr.startswith("The variable PRISMA_MODEL or the folder hub/ is wrong: expected OWNER/NAME")
    assert found.stderr.count("\n") == 1
