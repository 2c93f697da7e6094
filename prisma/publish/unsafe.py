"""Which files of a model repository can harm whoever opens them, by their names."""

import re
from collections.abc import Iterable, Mapping

from prisma.errors import is_text, listed, shown

PICKLE, PROGRAM, PAGE = "a pickle, which runs code when it is opened", "a program", "a web page, which runs scripts"
KINDS: Mapping[str, tuple[str, ...]] = {
    PICKLE: ("bin", "pt", "pth", "ckpt", "pkl", "pickle", "joblib", "dill", "mar"),
    PROGRAM: (
        *("exe", "dll", "so", "dylib", "msi", "com", "scr", "jar", "class", "wasm", "py", "pyc", "js", "mjs", "vbs"),
        *("sh", "bash", "bat", "cmd", "ps1", "app", "deb", "rpm", "apk", "lnk", "desktop"),
    ),
    PAGE: ("html", "htm", "xhtml", "mht", "mhtml"),
}
"""Why it is unsafe -> the endings of such files."""
_WHY = {ending: why for why, endings in KINDS.items() for ending in endings}
_VERSIONED = re.compile(r"\.so(\.\d+)+$")


def why_unsafe(name: str) -> str | None:
    """Why a file of this name may be unsafe to open; None if nothing is known against it."""
    if is_odd_name(name):
        return "a name that may lead elsewhere, or be shown as another"
    if _VERSIONED.search(name.lower()):
        return PROGRAM
    return _WHY.get(name.lower().rpartition("/")[2].rpartition(".")[2]) if "." in name else None


def is_odd_name(name: str) -> bool:
    """Whether a name leads out of its folder, or has characters that turn or hide text."""
    parts = re.split(r"[/\\]", name)
    return "" in parts or ".." in parts or ":" in name or not is_text(name)


def unsafe_problem(names: Iterable[str]) -> str | None:
    """What is wrong with the names of a revision's files, as one sentence; None if nothing is."""
    found = [(name, why) for name in sorted(names) if (why := why_unsafe(name))]
    if not found:
        return None
    some = listed([f"{shown(name)} ({why})" for name, why in found], 5)
    return f"expected only files that are safe to open; found {some}"
