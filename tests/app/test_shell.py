"""Gradio is imported without the files that it writes for editors, and torch only when a figure needs it."""

import inspect
import subprocess
import sys

from prisma_app import shell

CODE = """
import sys
from pathlib import Path
from unittest.mock import patch
parsed = []
with patch.object(Path, "write_text", lambda path, *_, **__: parsed.append(path)):
    import prisma_app.main
import gradio.component_meta as meta
print(parsed, "torch" in sys.modules, hasattr(prisma_app.shell.gr.HTML, "change"))
"""


def test_nothing_is_written_and_torch_is_not_imported() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=120)
    assert done.stdout.split("\n")[0] == "[] False True", done.stderr


def test_what_is_no_component_has_its_file() -> None:
    assert inspect.getfile(shell) == shell.__file__ and inspect.getfile is shell._getfile
