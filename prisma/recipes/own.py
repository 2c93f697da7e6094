"""A recipe in a file of your own: `prisma train my_recipe.py`.

    from prisma.config import ViTConfig
    from prisma.train import Recipe, TrainConfig

    RECIPE = Recipe("mine", "digits", ViTConfig(...), TrainConfig(...))

The file is Python, and is run. It may add a task of its own (`prisma.data.add`).
"""

import runpy
from pathlib import Path

from prisma.errors import PrismaError, listed, shown
from prisma.filesystem import given
from prisma.train import Recipe


def is_recipe_file(name: str) -> bool:
    """Whether this names a file, and not a recipe of the package."""
    return name.endswith(".py")


def recipe_in(path: Path | str) -> Recipe:
    """The recipe that a Python file defines: `RECIPE`, or the only one under whatever name.

    Raises:
        PrismaError: there is no such file, it raises an error (which is named, with its line), or it defines none, or
            several of which none is named RECIPE.
    """
    file = given(Path(path))
    if not file.is_file():
        raise PrismaError(f"expected a file of Python with a recipe at {file}; found none")
    try:
        values = runpy.run_path(str(file))
    except Exception as error:  # of any kind: it is the file's own code
        raise PrismaError(
            f"expected a recipe in {file}; found an error in {_line(error, file)}: {_words(error)}"
        ) from error
    found = {name: value for name, value in values.items() if isinstance(value, Recipe)}
    if "RECIPE" in found or len(found) == 1:
        return found.get("RECIPE") or next(iter(found.values()))
    names = f"several, {listed(sorted(found))}: name one of them RECIPE" if found else "none"
    raise PrismaError(f"expected a recipe (a prisma.train.Recipe) in {file}; found {names}")


def _line(error: Exception, file: Path) -> str:
    """The last line of the file itself that the error came through."""
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}"
    lines, trace = [], error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(file):
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return f"line {lines[-1]}" if lines else "it"


def _words(error: Exception) -> str:
    return shown(f"{type(error).__name__}: {error}", 300)
