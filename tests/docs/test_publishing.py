"""The page on publishing: its messages are those of the code, its commands exist, its figures come from files."""

import ast
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from prisma.cli import cli
from prisma.publish import calls

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "publishing.md").read_text()
TABLE = PAGE.partition("## What each message means")[2].partition("## How safe")[0]
ROWS = [row.strip("` ") for row in re.findall(r"^\| (`.+?`+) \|", TABLE, re.MULTILINE)]
HOLE = "…"


def texts(node: ast.AST) -> Iterator[str]:
    """Every text in the code, with a hole for each value."""
    if isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else HOLE for part in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield re.sub(r"\{\w+\}", HOLE, node.value)
    for child in ast.iter_child_nodes(node):
        yield from texts(child)


@pytest.fixture(scope="module")
def said() -> list[str]:
    return [text for path in (ROOT / "prisma").rglob("*.py") for text in texts(ast.parse(path.read_text()))]


@pytest.mark.parametrize("row", ROWS)
def test_a_message_is_one_of_the_code(row: str, said: list[str]) -> None:
    wanted = row.removeprefix("found ")
    assert any(wanted in text or holes(wanted) in holes(text) for text in said), row


def holes(text: str) -> str:
    """Text in which neighbouring holes, and what is between one and the next sign, are one."""
    return re.sub(rf"{HOLE}+", HOLE, text)


def test_every_reason_of_the_hub_is_explained() -> None:
    assert len(ROWS) > 15
    for reason in (*calls.REASONS.values(), calls.OFFLINE, calls.UNREACHABLE):
        assert re.sub(r"\{\w+\}", HOLE, reason) in TABLE


def test_its_commands_exist() -> None:
    blocks = re.findall(r"```bash\n(.+?)```", PAGE, re.DOTALL)
    commands = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    found: Any = typer.main.get_command(cli)
    ours = [command for command in commands if command[0] == "prisma"]
    assert len(ours) > 12
    for _, name, *rest in ours:
        known = {option for parameter in found.commands[name].params for option in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= known


def test_its_figures_come_from_files() -> None:
    render = runpy.run_path(str(ROOT / "tools" / "readme.py"))["render"]
    assert render(PAGE) == PAGE
    for name in ("chaos", "publish"):
        block = re.search(rf"<!-- {name}:begin .*?-->\n(.*?)<!-- {name}:end -->", PAGE, re.DOTALL)
        assert block
        assert block[1].startswith("|")
