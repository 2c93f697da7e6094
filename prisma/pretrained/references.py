"""How a reference is written: the sentence for one in another spelling says what to write instead."""

import re
from collections.abc import Callable

from prisma.errors import PrismaError, quoted
from prisma.pretrained.library_calls import quiet
from prisma.repo_names import is_repo_name
from prisma.repository import MICE

PREFIXES = {"timm": "timm", "hf": "transformers", "open_clip": "open_clip"}
"""First part of a reference -> library."""
FORMS = "a folder, timm/NAME, hf/ORG/NAME, open_clip/NAME, mice/NAME, or OWNER/NAME of a published mouse"
SPELLINGS = {
    "transformers": "hf", "huggingface": "hf", "hf-hub": "hf", "hf_hub": "hf", "hub": "hf", "hf": "hf",
    "timm": "timm", "open_clip": "open_clip", "open-clip": "open_clip", "openclip": "open_clip", "mice": "mice",
    "mouse": "mice", "prisma": "mice",
}  # fmt: skip
"""What people write in front of a name, in small letters -> the prefix that is meant."""
_URL = re.compile(
    r"(?:(?:https?:)?//)?(?:www\.)?(?:hf\.co|huggingface\.co)/(?P<name>[^/?#]+/[^/?#]+)(?:/(?:tree|blob|resolve)/(?P<revision>[^/?#]+))?.*"
)
_HUB = re.compile(r"(?:hf[-_]hub|hf|hub):(?://)?(?P<name>.+)", re.I)


def expect_spelling(ref: str) -> None:
    """Check the spelling of a reference that is not a folder.

    A name that the Hub allows is none: its owner may be called `transformers` or `prisma`. See `hint`.

    Raises:
        PrismaError: it is spelled in another way than `prisma.load` expects; the message says how to write it.
    """
    if not may_be_published(ref) and (better := _better(ref)) is not None:
        raise PrismaError(f"expected {FORMS}; found {quoted(ref, 200)}: {better}")


def hint(repo: str) -> str:
    """What a message adds if there is no repository of this name: what may have been meant."""
    better = _better(repo)
    return f"; there is no folder {repo} here either" + (
        f": {better}" if better else f", and a model of transformers is written hf/{repo}"
    )


def may_be_published(ref: str) -> bool:
    """Whether this may be OWNER/NAME of a published mouse."""
    return is_repo_name(ref) and ref.partition("/")[0].lower() not in {*PREFIXES, "mice"}


def _better(ref: str) -> str | None:
    """What to write instead of a reference, as a phrase; None if it is spelled as expected."""
    bare = ref.strip().strip("\"'")
    if not bare:
        return "it is empty"
    if found := _URL.fullmatch(bare):
        revision = f", with revision={found['revision']!r}" if found["revision"] not in (None, "main") else ""
        return f"write {_of_repository(found['name'])}{revision}"
    if bare.startswith(("local-dir:", "file:")):
        return f"write {bare.partition(':')[2].removeprefix('//')!r}"
    if "://" in bare and not bare.startswith(("hf://", "hf-hub://")):
        return "download the folder, and write its path"
    if re.match(r"[A-Za-z]:[\\/]", bare) or "\\" in bare:
        return "there is no such folder on this machine"
    if found := _HUB.fullmatch(bare):
        return f"write {_of_repository(found['name'])}"
    prefix, separator, name = bare.replace(":", "/", 1).partition("/") if _is_prefixed(bare) else bare.partition("/")
    meant = SPELLINGS.get(prefix.lower())
    if meant is None:
        written = bare if separator else _known_name(bare)
        return f"write {written.rstrip('/')!r}" if written and written.rstrip("/") != ref else None
    name = re.sub(r"^(hf[-_]hub|local-dir):", "", name, flags=re.I).strip("/")
    if meant == "timm" and name.startswith("timm/"):
        name = name.removeprefix("timm/")
    if meant == "hf" and name.startswith("timm/"):
        meant, name = "timm", name.removeprefix("timm/")
    better = f"{meant}/{name}"
    return f"write {better!r}" if name and better != ref else None


def _is_prefixed(ref: str) -> bool:
    """Whether a known prefix is followed by a colon instead of a slash: `open_clip:ViT-B-32`."""
    return ref.partition(":")[0].lower() in SPELLINGS


def _of_repository(name: str) -> str:
    """How to write a repository of the Hub, whose name does not tell which library it is for."""
    name = name.strip("/").removesuffix(".git")
    if name.startswith("timm/"):
        return repr(name)
    return (
        f"'hf/{name}' for a model of transformers, 'open_clip/{name}' for one of open_clip, or {name!r} for a "
        "published mouse"
    )


def _known_name(name: str) -> str | None:
    """The reference of a name without prefix that a library, or this package, has; None if none has it."""
    if name in {folder.name for folder in MICE.iterdir()}:
        return f"mice/{name}"
    for prefix, has in (("timm", _in_timm), ("open_clip", _in_open_clip)):
        if has(name):
            return f"{prefix}/{name}"
    return None


def _in_timm(name: str) -> bool:
    return _asked(lambda: __import__("timm").is_model(name.partition(".")[0]))


def _in_open_clip(name: str) -> bool:
    return _asked(lambda: name.partition(":")[0] in __import__("open_clip").list_models())


def _asked(ask: Callable[[], bool]) -> bool:
    """The answer of a library; False if it is not installed."""
    try:
        with quiet():
            return ask()
    except ImportError:
        return False
