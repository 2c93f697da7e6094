"""The command as a whole: help, exit codes, and one sentence for whatever stops it."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import typer

from prisma import __version__
from prisma.cli import cli
from tests.cli.running import Prisma, one_sentence


@pytest.mark.parametrize(
    "command",
    [
        "demo",
        "mice",
        "train",
        "import",
        "models",
        "publish",
        "diff",
        "yank",
        "audit",
        "card",
        "space",
        "analyze",
        "app",
    ],
)
def test_every_command_has_help_with_an_example(prisma: Prisma, command: str) -> None:
    code, out, _ = prisma(command, "--help")
    assert code == 0
    assert f"Example: prisma {command}" in " ".join(out.split())


def test_help_imports_no_torch() -> None:
    code = "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules)); sys.argv = ['prisma', '--help']"
    code += "; import prisma.cli; prisma.cli.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert done.stdout.strip().endswith("False"), done


def commands_with_out() -> Iterator[tuple[str, ...]]:
    """Every command that has `--out`, with nonsense for all that it needs."""

    def walk(group: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from walk(command, (*path, name))
            elif any("--out" in param.opts for param in command.params):
                needed = [p for p in command.params if p.required and p.name != "out"]
                words = [(*p.opts[:1] * (p.param_type_name == "option"), "1") for p in needed]
                yield *path, name, *(word for pair in words for word in pair)

    yield from walk(typer.main.get_command(cli), ())


@pytest.mark.parametrize("words", list(commands_with_out()), ids=lambda words: " ".join(words[:2]))
def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_read(
    mistake: Callable[..., str], words: tuple[str, ...]
) -> None:
    said = mistake(*words, "--out", "full/thesis.tex/new")
    assert said.startswith("prisma: expected a folder at /") and said.endswith("/full/thesis.tex; found a file\n")


def test_every_command_with_an_out_is_tried() -> None:
    names = {" ".join(words[: 1 + (words[0] == "sparse")]) for words in commands_with_out()}
    assert names == {
        "demo", "train", "import", "batch", "smallest", "mechanism", "space", "analyze", "activations", "sparse train",
        "sparse show", "edit", "trace", "rewrite", "features",
    }  # fmt: skip


def test_wrong_usage_is_exit_code_2(prisma: Prisma) -> None:
    assert prisma("train")[0] == 2
    assert prisma("fly")[0] == 2
    assert prisma("train", "digits", "--set", "steps")[0] == 2


def test_version(prisma: Prisma) -> None:
    assert prisma("--version") == (0, f"{__version__}\n", "")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (KeyboardInterrupt(), "stopped; prisma train digits --out runs/digits --resume continues from here"),
        (ModuleNotFoundError("No module named 'sklearn'", name="sklearn"), "expected the package sklearn; found none"),
        (OSError(28, "No space left on device"), "No space left on device"),
    ],
)
def test_what_stops_a_command_is_one_sentence(
    prisma: Prisma, monkeypatch: pytest.MonkeyPatch, error: BaseException, sentence: str
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("prisma.train.train", stopped)
    code, _, err = prisma("train", "digits")
    assert code == (130 if isinstance(error, KeyboardInterrupt) else 1)
    assert sentence in one_sentence(err)
