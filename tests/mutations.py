"""Files as accidents and strangers leave them: a random damage of one file, a function of the generator alone."""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

VALUES: tuple[Any, ...] = (
    None, True, 0, 1, -1, 0.5, -1e-300, 1e308, 2**63, 10**40, "", "3", "x" * 5_000, "\x1b[31m\n\u202e", "ü" * 300,
    [], {}, [None], [[1.5, "a"]], {"a": {"b": []}}, {"\x07" * 200: 1}, [0] * 3_000, "../../x", "\0",
)  # fmt: skip


def mutate(path: Path, chance: random.Random) -> str:
    """Damage a file, and return how."""
    name = chance.choice(sorted(KINDS))
    KINDS[name](path, chance)
    return name


def _json(path: Path, chance: random.Random) -> None:
    """Another value, or none, somewhere in the JSON of the file, or of one of its lines, or of its header."""
    data = path.read_bytes()
    is_weights = path.suffix == ".safetensors"
    size = 8 + int.from_bytes(data[:8], "little") if is_weights else 0
    lines = [data[8:size]] if is_weights else data.splitlines() if path.suffix == ".jsonl" else [data]
    i = chance.randrange(len(lines))
    try:
        tree = [json.loads(lines[i])]
    except ValueError:  # no JSON: a label, an array
        _flipped(path, chance)
        return
    _change(tree, chance)
    lines[i] = json.dumps(tree[0]).encode() if tree else b""
    if is_weights:
        path.write_bytes(len(lines[0]).to_bytes(8, "little") + lines[0] + data[size:])
    else:
        path.write_bytes(b"\n".join(lines) + b"\n")


def _change(tree: Any, chance: random.Random) -> None:
    """Put another value in a random place of nested lists and objects, or remove what is there."""
    key = chance.choice(sorted(tree) if isinstance(tree, dict) else range(len(tree)))
    if isinstance(tree[key], list | dict) and tree[key] and chance.random() < 0.8:
        _change(tree[key], chance)
    elif chance.random() < 0.2:
        del tree[key]
    else:
        tree[key] = chance.choice(VALUES)


def _doubled(path: Path, chance: random.Random) -> None:
    """A name twice in one object."""
    data = path.read_bytes()
    path.write_bytes(data.replace(b"{", b'{"run": 1, "run": 2, ' if chance.random() < 0.5 else b'{"a": 0, "a": 0, ', 1))


def _cut(path: Path, chance: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: chance.randrange(len(data))])


def _flipped(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(chance.choice((1, 1, 5))):
        data[chance.randrange(min(len(data), chance.choice((200, 10**9))))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def _inserted(path: Path, chance: random.Random) -> None:
    data, place = path.read_bytes(), chance.randrange(path.stat().st_size)
    path.write_bytes(data[:place] + chance.choice((b"\xff\xfe", b"\0", b"\n", b"[" * 3_000, b"NaN")) + data[place:])


def _replaced(content: bytes) -> Callable[[Path, random.Random], object]:
    return lambda path, chance: path.write_bytes(content)


def _instead(make: Callable[[Path], object]) -> Callable[[Path, random.Random], None]:
    def change(path: Path, chance: random.Random) -> None:
        path.unlink()
        make(path)

    return change


KINDS: dict[str, Callable[[Path, random.Random], object]] = {
    "another value": _json,
    "another value somewhere": _json,
    "other values": lambda path, chance: (_json(path, chance), _json(path, chance)),
    "a name twice": _doubled,
    "cut": _cut,
    "flipped bits": _flipped,
    "inserted bytes": _inserted,
    "empty": _replaced(b""),
    "an empty object": _replaced(b"{}"),
    "a list": _replaced(b"[]"),
    "no UTF-8": _replaced(b'{"run": "\xff"}'),
    "a folder": _instead(Path.mkdir),
    "a pipe": _instead(os.mkfifo),
    "gone": _instead(lambda path: None),
    "a link to nothing": _instead(lambda path: path.symlink_to("nothing")),
    "a link to itself": _instead(lambda path: path.symlink_to(path.name)),
}
