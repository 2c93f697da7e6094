from dataclasses import replace

import pytest

from prisma.train import TrainConfig
from prisma.train.schedule import checkpoint_steps, learning_rate

CONFIG = TrainConfig(steps=1000, batch_size=1, lr=0.5, warmup=9, weight_decay=0, checkpoint_every=200)


def test_the_rate_rises_from_above_zero_to_its_peak_and_falls_to_zero() -> None:
    assert learning_rate(CONFIG, 0) == pytest.approx(0.05)
    rates = [learning_rate(CONFIG, step) for step in range(CONFIG.steps + 1)]
    assert rates[:10] == pytest.approx([0.05 * (step + 1) for step in range(10)])
    assert max(rates) == rates[9] == CONFIG.lr
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[9 + (1000 - 9) // 3] == pytest.approx(0.5 * 0.75, rel=1e-3)  # cos(pi / 3) = 1/2
    assert rates[-1] == 0 < rates[-2]


def test_without_warm_up_the_first_rate_is_the_peak() -> None:
    assert learning_rate(replace(CONFIG, warmup=0), 0) == CONFIG.lr


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (10, (0, 1, 2, 4, 8, 10)),
        (64, (0, 1, 2, 4, 8, 16, 32, 64)),
        (512, (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512)),
        (1000, (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 800, 1000)),
        (1001, (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 800, 1000, 1001)),
    ],
)
def test_checkpoints_are_dense_early_then_regular_and_always_at_the_end(steps: int, expected: tuple[int, ...]) -> None:
    assert checkpoint_steps(replace(CONFIG, steps=steps)) == expected
