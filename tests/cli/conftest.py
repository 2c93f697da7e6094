"""The `prisma` command, run in this process."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from prisma.cli import main
from tests.cli.running import Prisma
from tests.hubserver.conftest import server

__all__ = ["mistake", "prisma", "server"]


@pytest.fixture
def prisma(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Prisma:
    """Run a command in this process, in an empty folder -> (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["prisma", *arguments])
        with pytest.raises(SystemExit) as exit_:
            main()
        code = exit_.value.code
        captured = capsys.readouterr()
        return int(code or 0), captured.out, captured.err

    return run


@pytest.fixture
def mistake(prisma: Prisma, tmp_path: Path) -> Callable[..., str]:
    """Run a command that cannot be done -> the one sentence that it says. It must leave every file as it was."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")

    def run(*arguments: str) -> str:
        before = sorted(tmp_path.rglob("*"))
        code, out, err = prisma(*arguments)
        assert code == 1
        assert out == ""
        said = [line for line in err.split("\n") if line and not line.startswith("\r")]  # without a progress bar
        assert len(said) == 1
        assert sorted(tmp_path.rglob("*")) == before
        return said[0] + "\n"

    return run
