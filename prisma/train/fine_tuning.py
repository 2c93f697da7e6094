"""Fine-tuning: a trained model as the beginning of a run for another task."""

from dataclasses import replace
from pathlib import Path

import torch

from prisma.config import ViTConfig
from prisma.data.task import Task
from prisma.data.transform import Transform
from prisma.errors import PrismaError
from prisma.loaded import Loaded
from prisma.repo_names import is_repo_name
from prisma.train.initial import initial_model
from prisma.vit import ViT


def repository_of(ref: str) -> str | None:
    """The repository on the Hub that `prisma.load` reads a model from, for the card; None if it is another place."""
    kind, _, name = ref.partition("@")[0].partition("/")
    if kind == "mice" or Path(ref).expanduser().exists() or (kind == "open_clip" and "/" not in name):
        return None
    repo = name if kind in ("hf", "open_clip") else f"{kind}/{name}"
    return repo if is_repo_name(repo) and (kind != "timm" or "." in name) else None


def fitted(loaded: Loaded, data: Task, seed: int, init: str) -> ViT:
    """A trained model as the first weights for a task: a copy in float32, with a head for the task's classes.

    Its head is kept if its class names are the task's. Otherwise it is drawn by the seed, as the head of a new model.
    The model computes the same from the task's pixels as from its own: where the two are normalised differently, the
    difference goes into the map of its patches.

    Raises:
        PrismaError: the model takes other images than the task has.
    """
    config = loaded.model.config
    for name, wanted in (("image_sides", data.transform.size), ("channels", len(data.transform.mean))):
        if (found := getattr(config, name)) != wanted:
            raise PrismaError(
                f"expected a model whose {name} are {wanted}, as in the task {data.name}; found {found}: a task of "
                f"pictures can have any size, such as folder-{config.image_sides[0]}:PATH"
            )
    keeps_head = tuple(loaded.labels) == tuple(data.labels)
    own = config if keeps_head else replace(config, n_classes=len(data.labels), head_bias=True)
    model = initial_model(own, seed, init)
    weights = {name: x for name, x in loaded.model.state_dict().items() if keeps_head or not _in_head(name)}
    model.load_state_dict({**model.state_dict(), **weights})
    if loaded.transform is not None:
        _renormalise(model, config, loaded.transform, data.transform)
    return model.float()


def _in_head(name: str) -> bool:
    return name.startswith("readout.head.")


@torch.no_grad()
def _renormalise(model: ViT, config: ViTConfig, its: Transform, ours: Transform) -> None:
    """Let the map of the patches take pixels (p - mean) / std of the task's mean and std, in place of the model's.

    For each channel, (p - m) / s = x s' / s + (m' - m) / s, where x = (p - m') / s' is what the task gives.
    """
    mean, std, mean_, std_ = (torch.tensor(x, dtype=torch.float64) for x in (its.mean, its.std, ours.mean, ours.std))
    patch, per_channel = model.embed.patch, config.tubelet * config.patch_sides[0] * config.patch_sides[1]
    scale, shift = ((x / std).repeat_interleave(per_channel) for x in (std_, mean_ - mean))
    exact = patch.weight.double()
    patch.bias.copy_(patch.bias.double() + exact @ shift)
    patch.weight.copy_(exact * scale)
