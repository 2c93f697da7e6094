"""AdamW with decay on the matrices only (Loshchilov and Hutter 1711.05101), and its learning rate at each step."""

import math
from typing import Any

from torch import nn
from torch.optim import AdamW

from prisma.train.config import TrainConfig

BETAS, EPS = (0.9, 0.999), 1e-8


def decay_groups(model: nn.Module, weight_decay: float, everything: bool = False) -> list[dict[str, Any]]:
    """Weights of linear maps decay; biases, norms, layer scales, prefix tokens and positions only if `everything`.

    Weights that need no gradient are in no group.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    matrices = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    if everything:
        matrices = set(map(id, parameters))
    return [
        {"params": [p for p in parameters if id(p) in matrices], "weight_decay": weight_decay},
        {"params": [p for p in parameters if id(p) not in matrices], "weight_decay": 0.0},
    ]


def make_optimizer(model: nn.Module, config: TrainConfig) -> AdamW:
    """AdamW for a model. The loop sets its learning rate before each update."""
    groups = decay_groups(model, config.weight_decay, config.decay_all)
    return AdamW(groups, lr=config.lr, betas=BETAS, eps=EPS, fused=True)


def learning_rate(config: TrainConfig, step: int) -> float:
    """The rate of the update after `step`: a linear rise from above zero, then half a cosine to zero at the last step.

    With `decay_every` it rises and falls in stairs at the same time instead: the peak is multiplied by `decay_factor`
    after each so many steps.

    The first rate is above zero, so that the weights of step 1 differ from those of step 0 (Loshchilov and Hutter
    1608.03983, with warm-up).
    """
    stairs = config.decay_factor ** (step // config.decay_every) if config.decay_every else 1.0
    if step < config.warmup:
        return config.lr * stairs * (step + 1) / (config.warmup + 1)
    if config.decay_every:
        return config.lr * stairs
    done = (step - config.warmup) / (config.steps - config.warmup)
    return config.lr * (1 + math.cos(math.pi * done)) / 2
