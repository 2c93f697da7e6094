"""`app/app.py`, which a Space starts, outside a Space: over a folder hub beside it, or the mouse of a variable."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

from prisma.publish.space.code import APP
from tests.app.conftest import DIGITS, GLYPHS
from tests.app.visitor import STOPPED

SPACE = Path(__file__).parents[2] / "app"


def test_it_is_what_a_space_starts() -> None:
    assert (SPACE / "app.py").read_text() == APP


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
            page = urlopen(found[0].rstrip("/") + "/prisma/models", timeout=STOPPED).read().decode()
        finally:
            server.kill()
    assert DIGITS in page
    assert GLYPHS in page
