"""What happens at which step: the learning rate, and the checkpoints."""

import math

from prisma.train.config import TrainConfig

LAST_POWER = 512


def learning_rate(config: TrainConfig, step: int) -> float:
    """The rate of the update that leaves `step`: a linear rise from above zero, then half a cosine to zero at the end.

    The first update already learns, so the weights of step 1 differ from those of step 0 (Loshchilov and Hutter
    1608.03983, with warm-up).
    """
    if step < config.warmup:
        return config.lr * (step + 1) / (config.warmup + 1)
    done = (step - config.warmup) / (config.steps - config.warmup)
    return config.lr * (1 + math.cos(math.pi * done)) / 2


def checkpoint_steps(config: TrainConfig) -> tuple[int, ...]:
    """0, 1, 2, 4, ... 512, then the multiples of `checkpoint_every`, and always the last step."""
    powers = [0, *(2**i for i in range(LAST_POWER.bit_length()))]
    later = range(config.checkpoint_every, config.steps, config.checkpoint_every)
    early = [step for step in powers if step < config.steps]
    return (*early, *(step for step in later if step > LAST_POWER), config.steps)
