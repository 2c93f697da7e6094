"""Which files are large, and which are left out: what `.gitattributes` and `.gitignore` say, and what a file holds."""

import codecs
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import PurePosixPath


@lru_cache(4096)
def matches(path: str, pattern: str) -> bool:
    """Whether git's pattern means this file or a folder that it is in."""
    pattern, anchored = pattern.rstrip("/"), "/" in pattern.rstrip("/")
    pattern = pattern.lstrip("/")
    places = [PurePosixPath(path), *PurePosixPath(path).parents][:-1]
    if anchored:
        return any(fnmatchcase(str(place), pattern.replace("**/", "*")) for place in places)
    return any(fnmatchcase(place.name, pattern) for place in places)


def is_large(path: str, size: int, sample: bytes, attributes: str, limit: int) -> bool:
    """Whether a file is stored apart: by its name, because it is no text, or because of its size."""
    if size == 0:
        return False
    rules = [line.split() for line in attributes.splitlines() if line.strip()]
    return (
        any("filter=lfs" in words and matches(path, pattern) for pattern, *words in rules)
        or size > limit
        or is_binary(sample)
    )


def is_binary(sample: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(sample)  # the last letter may be cut
    except UnicodeDecodeError:
        return True
    return "\0" in text


def is_ignored(path: str, ignore: str) -> bool:
    """Whether a `.gitignore` leaves the file out: its last rule that matches decides."""
    ignored = False
    for line in ignore.splitlines():
        rule = line.strip()
        if rule and not rule.startswith("#") and matches(path, rule.removeprefix("!")):
            ignored = not rule.startswith("!")
    return ignored
