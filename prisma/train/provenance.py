"""The content of `recipe.json`: all that is needed to train the same weights again, and where they were trained."""

import hashlib
import json
import platform
import subprocess
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from prisma import __version__
from prisma.checkpoint import config_from_dict
from prisma.data import task
from prisma.errors import PrismaError
from prisma.ledger import FORMAT
from prisma.train.config import Recipe
from prisma.train.optimizer import BETAS, EPS

_IDENTITY = ("recipe", "task", "model", "training", "optimizer")
_PACKAGES = ("torch", "numpy", "safetensors")


def describe(recipe: Recipe, device: torch.device, command: str) -> dict[str, Any]:
    """The content of `recipe.json`. `run`, the run's id, is a hash of the settings that determine its weights."""
    data = task(recipe.task)
    splits = {name: len(split.labels) for name, split in data.splits.items()}
    identity = {
        "recipe": recipe.name,
        "task": {"name": data.name, "source": data.source, "sha256": data.sha256, "images": splits},
        "model": asdict(recipe.model),
        "training": asdict(recipe.training),
        "optimizer": {"name": "AdamW", "betas": BETAS, "eps": EPS, "decay": "weights of linear maps only"},
    }
    identity = json.loads(json.dumps(identity))  # tuples become lists, as in the file
    return {
        "format": FORMAT,
        "run": hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16],
        **identity,
        "license": recipe.license,
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
    """Raise PrismaError, which names the first setting that differs, unless both describe the same run."""
    for key in _IDENTITY:
        for name, here, there in _differences(key, wanted.get(key), _today(key, found.get(key))):
            raise PrismaError(
                f"expected the run in {path} to have {name}={here!r}; found {there!r}; choose another --out"
            )


def _today(key: str, value: Any) -> Any:
    """A part of a recipe, with the architecture as this version writes it."""
    if key != "model" or not isinstance(value, dict):
        return value
    try:
        return asdict(config_from_dict(value, "recipe.json"))
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
