"""The content of `recipe.json`: all that is needed to train the same weights again, and where they were trained."""

import hashlib
import json
import platform
import shlex
import subprocess
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from prisma import __version__
from prisma.checkpoint import config_from_dict, weights_hash
from prisma.data import task
from prisma.errors import PrismaError, listed, quoted, shown
from prisma.ledger import FORMAT
from prisma.train.config import Recipe
from prisma.train.optimizer import BETAS, EPS
from prisma.vit import ViT

_IDENTITY = ("recipe", "task", "model", "training", "optimizer", "first_weights")
_LONGEST_COMMAND = 160  # characters that a message has room for
_SHOWN = 5  # more differences that a message has room for
_PACKAGES = ("torch", "numpy", "safetensors")


def describe(recipe: Recipe, device: torch.device, command: str, first: ViT | None = None) -> dict[str, Any]:
    """The content of `recipe.json`. `run`, the run's id, is a hash of the settings that determine its weights.

    Args:
        first: the model that training began with, if its first weights are not drawn: `first_weights` is their hash.
    """
    data = task(recipe.task)
    decay = "all weights" if recipe.training.decay_all else "weights of linear maps only"
    splits = {name: len(split.labels) for name, split in data.splits.items()}
    identity = {
        "recipe": recipe.name,
        "task": {"name": data.name, "source": data.source, "sha256": data.sha256, "images": splits},
        "model": asdict(recipe.model),
        "training": recipe.training.to_dict(),
        "optimizer": {"name": "AdamW", "betas": BETAS, "eps": EPS, "decay": decay},
    }
    if first is not None:
        identity["first_weights"] = {"sha256": weights_hash(first.state_dict())}
    identity = _as_in_a_file(identity)
    return {
        "format": FORMAT,
        "run": hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16],
        **identity,
        "license": recipe.license,
        **({"datasets": list(recipe.datasets)} if recipe.datasets else {}),
        **({"base_model": list(recipe.base_model)} if recipe.base_model else {}),
        "seeds": seeds(recipe),
        "data_order": {
            "function": "prisma.train.order.batch",
            "words": "the epochs' permutations of the training images one after the other, a batch at a time; a pure "
            "function of order_seed and step",
        },
        "command": command,
        "environment": environment(recipe, device),
        "git": git_state(Path(__file__).parents[1]),
    }


def _as_in_a_file(values: dict[str, Any]) -> dict[str, Any]:
    """Values as reading them from a file gives them: tuples are lists."""
    return dict(json.loads(json.dumps(values)))


def seeds(recipe: Recipe) -> dict[str, int]:
    """The seed of each role."""
    return {"init": recipe.training.init_seed, "order": recipe.training.order_seed}


def environment(recipe: Recipe, device: torch.device) -> dict[str, Any]:
    """Versions and machine, on which the last bits of the weights may depend."""
    return {
        "python": platform.python_version(),
        "prisma": __version__,
        **{package: version(package) for package in _PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": recipe.training.threads,
    }


def git_state(folder: Path) -> dict[str, Any] | None:
    """{"commit", "dirty"} of the git checkout that tracks the code in this folder; None if none does."""
    tracked = _git(folder, "ls-files", "--error-unmatch", "__init__.py")
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--", ".")
    return None if None in (tracked, commit) else {"commit": commit, "dirty": changes != ""}


def expect_same(found: dict[str, Any], wanted: dict[str, Any], path: Path) -> None:
    """Raise PrismaError unless both describe the same run: it names the settings that differ, and how to resume.

    Args:
        found: what `recipe.json` holds; anybody may have written it.
    """
    rows = [row for key in _IDENTITY for row in _differences(key, wanted.get(key), _today(key, found.get(key)))]
    if rows:
        (name, here, there), *others = rows
        more = [f"{shown(name)}={quoted(here)}, found {quoted(there)}" for name, here, there in others]
        rest = f"; and {listed(more, _SHOWN, '; ')}" if more else ""
        raise PrismaError(
            f"expected the run in {path} to have {shown(name)}={quoted(here)}; found {quoted(there)}{rest}; choose "
            f"another --out{_or_its_own_settings(found, wanted, rows, path)}"
        )


def _or_its_own_settings(
    found: dict[str, Any], wanted: dict[str, Any], rows: list[tuple[str, Any, Any]], path: Path
) -> str:
    """How to resume a run with the settings that it was begun with, as far as a short and safe line can say it."""
    words, own = _command_in(found), _overrides(wanted, rows)
    again = shlex.join([*words, "--out", str(path), "--resume"]) if words else ""
    ways = [
        *([f"`{again}`"] if 0 < len(again) <= _LONGEST_COMMAND + len(str(path)) and again.isprintable() else []),
        *([f"in Python with recipe.override({own})"] if own else []),
    ]
    return f", or resume it as it was begun: {', '.join(ways)}" if ways else ""


def _command_in(found: dict[str, Any]) -> list[str]:
    """The words of the recorded command, if it is a `prisma train RECIPE --set KEY=VALUE ...` of this recipe."""
    text = found.get("command")
    try:
        words = shlex.split(text) if isinstance(text, str) and len(text) <= _LONGEST_COMMAND else []
    except ValueError:  # an open quotation
        words = []
    options, values = words[3::2], words[4::2]
    is_ours = words[:3] == ["prisma", "train", found.get("recipe")] and not words[2].startswith("-")
    pairs = len(options) == len(values) and set(options) <= {"--set"} and all("=" in value for value in values)
    return words if is_ours and pairs else []


def _overrides(wanted: dict[str, Any], rows: list[tuple[str, Any, Any]]) -> dict[str, str]:
    """What `Recipe.override` takes to give the settings of the run; empty if more than these differs."""
    own: dict[str, str] = {}
    for name, _, there in rows:
        part, _, field = name.partition(".")
        parts = there if isinstance(there, list) else [there]
        simple = all(x is None or isinstance(x, int | float) or (isinstance(x, str) and x.isascii()) for x in parts)
        if part not in ("model", "training") or field not in wanted[part] or not simple:
            return {}
        own[field] = ",".join("none" if x is None else str(x) for x in parts)
    return own if len(str(own)) <= _LONGEST_COMMAND else {}


def _today(key: str, value: Any) -> Any:
    """A part of a recipe, with the architecture as this version writes it."""
    if key != "model" or not isinstance(value, dict):
        return value
    try:
        return _as_in_a_file(asdict(config_from_dict(value, "recipe.json")))
    except PrismaError:
        return value


def _differences(name: str, here: Any, there: Any) -> list[tuple[str, Any, Any]]:
    if isinstance(here, dict) and isinstance(there, dict):
        keys = [*here, *(key for key in there if key not in here)]
        return [row for key in keys for row in _differences(f"{name}.{key}", here.get(key), there.get(key))]
    return [] if here == there else [(name, here, there)]


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
