"""Large files and files that are left out."""

import pytest

from tests.hubserver.attributes import is_ignored, is_large
from tests.hubserver.store import GITATTRIBUTES


@pytest.mark.parametrize(
    ("path", "size", "sample", "large"),
    [
        ("a/model.safetensors", 3, b"abc", True),
        ("model.safetensors", 0, b"", False),
        ("config.json", 100, b"{}", False),
        ("config.json", 101, b"{}", True),
        ("saved_model/a/b", 3, b"abc", True),
        ("x.tar.old", 3, b"abc", True),
        ("picture", 3, b"\x89PN", True),
        ("zeros", 3, b"a\0b", True),
        ("cut", 3, "äöü".encode()[:-1], False),
    ],
)
def test_large_is_what_its_name_its_size_or_its_bytes_say(path: str, size: int, sample: bytes, large: bool) -> None:
    assert is_large(path, size, sample, GITATTRIBUTES.decode(), 100) is large


@pytest.mark.parametrize(
    ("path", "ignored"),
    [
        ("a/x.log", True),
        ("keep.log", False),
        ("build/a.txt", True),
        ("a/build/b", True),
        ("top", True),
        ("a/top", False),
    ],
)
def test_the_last_rule_that_matches_decides(path: str, ignored: bool) -> None:
    assert is_ignored(path, "# logs\n*.log\n!keep.log\n\nbuild/\n/top\n") is ignored
