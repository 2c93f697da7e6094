"""Only PrismaError comes out of the readers, at once, whatever a file is and whatever is in it."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prisma.checkpoint import read_tensors
from prisma.errors import PrismaError
from prisma.files import read_json
from prisma.reading import open_file, parse_json, read_bytes, read_text
from prisma.run_folder import read_metrics

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def special(folder: Path) -> dict[str, tuple[Path, str]]:
    """Files that are no files, and how they are called."""
    path = folder.joinpath
    os.mkfifo(path("pipe"))
    path("folder").mkdir()
    path("loop").symlink_to(path("loop"))
    path("lost").symlink_to("nowhere")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(os.path.relpath(path("socket")))
    listening.close()
    return {
        "pipe": (path("pipe"), r"a pipe \(FIFO\)"),
        "folder": (path("folder"), "a folder"),
        "zero": (Path("/dev/zero"), "a device"),
        "loop": (path("loop"), "a file that cannot be read: Too many levels"),
        "lost": (path("lost"), "a link to a file that does not exist"),
        "absent": (path("absent"), "no such file"),
        "long": (path("x" * 300), "a file that cannot be read: File name too long"),
        "NUL": (Path("a\0b"), "a file that cannot be read: embedded null byte"),
        "socket": (path("socket"), "a file that cannot be read"),
    }


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    for name, (path, found) in special(tmp_path).items():
        for read in (open_file, read_bytes, read_text, read_json, read_tensors, read_metrics):
            with pytest.raises(PrismaError, match=rf"expected .* at .*; found {found}"):
                read(path)
                pytest.fail(f"{name} is read")


def test_a_model_whose_config_is_a_pipe_or_endless_is_refused_at_once(tmp_path: Path) -> None:
    """In a process of its own, which would wait for ever."""
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "config.json")
    (tmp_path / "zero").mkdir()
    (tmp_path / "zero" / "config.json").symlink_to("/dev/zero")
    code = """
import sys, prisma
for folder in sys.argv[1:]:
    try:
        prisma.load(folder)
    except prisma.PrismaError as error:
        print(error)
"""
    folders = [str(tmp_path / name) for name in ("pipe", "zero")]
    done = subprocess.run([sys.executable, "-c", code, *folders], capture_output=True, text=True, timeout=120)
    pipe, zero = done.stdout.splitlines()
    assert "found a pipe (FIFO)" in pipe
    assert "found a device" in zero


def test_a_sparse_file_of_a_terabyte_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(
        PrismaError, match=r"expected a file of at most 16,777,216 bytes at .*; found 1,099,511,627,776"
    ):
        read_json(path)
    with pytest.raises(PrismaError, match=r"weights in .* to fit into this machine's memory"):
        read_tensors(path)


BAD_JSON: dict[str, tuple[str, str]] = {
    "deep": ("[" * 100_000, "nested more than 64 deep"),
    "deep objects": ('{"a":' * 65 + "1" + "}" * 65, "nested more than 64 deep"),
    "deep after quotes": ('["\\"[[", "' + "[" * 500 + '"]' + "[" * 100, "nested more than 64 deep"),
    "many": ("[" + "1," * 4_000_000 + "1]", "more than 4,000,000 values"),
    "NaN": ("[NaN]", "the number NaN"),
    "infinity": ('{"a": -Infinity}', "the number -Infinity"),
    "1e400": ("[1e400]", "the number 1e400, which is too large"),
    "huge": ("[1" + "0" * 5000 + "]", "a whole number of 5,001 digits"),
    "twice": ('{"a": 1, "b": 2, "a": 3}', "the name 'a' twice in one object"),
    "half": ('{"a": "\\ud800"}', "half of a character"),
    "half of a name": ('{"\\udfff": 1}', "half of a character"),
    "empty": ("", "something else"),
    "torn": ('{"a": ', "something else"),
}


@pytest.mark.parametrize(("text", "found"), BAD_JSON.values(), ids=BAD_JSON)
def test_json_that_means_no_one_thing_is_refused(text: str, found: str) -> None:
    with pytest.raises(PrismaError, match=rf"^expected JSON in x; found .*{found}"):
        parse_json(text, "x")


def test_json_that_is_fine_is_read(tmp_path: Path) -> None:
    deep: Any = 1
    for _ in range(64):
        deep = [deep]
    for value in (deep, {"a": "[" * 500, "\U0001f600": -1.5e300, "b": [True, None, 10**18]}, {}, "\\ud800"):
        assert parse_json(json.dumps(value), "x") == value
    (tmp_path / "x.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')  # a byte order mark
    assert read_json(tmp_path / "x.json") == {"a": 1}
    (tmp_path / "x.json").write_bytes(b'{"a": "\xe9"}')
    with pytest.raises(PrismaError, match=r"expected text in UTF-8 in .*x\.json; found the byte 0xe9 at 7"):
        read_json(tmp_path / "x.json")


@given(JSON)
@settings(max_examples=60, deadline=None)
def test_any_value_comes_back_or_is_refused(value: Any) -> None:
    text = json.dumps(value)
    try:
        found = parse_json(text, "x")
    except PrismaError as error:
        assert "\n" not in str(error) and str(error).isprintable()
    else:
        assert json.dumps(found) == text


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode("utf-8", "replace")))
@settings(max_examples=80, deadline=None)
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    for data in (content, len(content).to_bytes(8, "little") + content):
        path.write_bytes(data)
        for read in (read_json, read_metrics, read_tensors):
            try:
                read(path)
            except PrismaError as error:
                assert str(error).isprintable()


ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "U8", "F4", 3, None]),
        "shape": st.lists(st.integers(-1, 2**62), max_size=2) | st.just("x") | st.just([True]),
        "data_offsets": st.lists(st.integers(-8, 2**40), max_size=3) | st.none(),
        "more": st.none(),
    },
)


@given(
    st.dictionaries(
        st.sampled_from(["a", "b", "__metadata__"]),
        ENTRY | st.integers() | st.dictionaries(st.text(), st.text(), max_size=2),
        max_size=3,
    )
)
@settings(max_examples=120, deadline=None)
def test_any_header_of_safetensors_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, header: dict[str, Any]
) -> None:
    text = json.dumps(header).encode()
    path = tmp_path_factory.getbasetemp() / "fuzzed.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    try:
        read_tensors(path)
    except PrismaError as error:
        assert str(error).isprintable()
