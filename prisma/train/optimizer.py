"""AdamW with decay on the matrices only (Loshchilov and Hutter 1711.05101), and its learning rate at each step."""

import math

from torch import nn
from torch.optim import AdamW

from prisma.train.config import TrainConfig
from prisma.vit import ViT

BETAS, EPS = (0.9, 0.999), 1e-8


def decay_groups(model: ViT, weight_decay: float) -> list[dict[str, object]]:
    """Weights of linear maps decay; biases, norms, layer scales, prefix tokens and positions do not."""
    matrices = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if id(p) in matrices], "weight_decay": weight_decay},
        {"params": [p for p in parameters if id(p) not in matrices], "weight_decay": 0.0},
    ]


def make_optimizer(model: ViT, config: TrainConfig) -> AdamW:
    """AdamW for a model. The loop sets its learning rate before each update."""
    return AdamW(decay_groups(model, config.weight_decay), lr=config.lr, betas=BETAS, eps=EPS, fused=True)


def learning_rate(config: TrainConfig, step: int) -> float:
    """The rate of the update after `step`: a linear rise from above zero, then half a cosine to zero at the last step.

    The first rate is above zero, so that the weights of step 1 differ from those of step 0 (Loshchilov and Hutter
    1608.03983, with warm-up).
    """
    if step < config.warmup:
        return config.lr * (step + 1) / (config.warmup + 1)
    done = (step - config.warmup) / (config.steps - config.warmup)
    return config.lr * (1 + math.cos(math.pi * done)) / 2
