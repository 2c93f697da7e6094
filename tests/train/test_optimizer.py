from dataclasses import replace

import pytest
import torch

from prisma.train import Recipe, TrainConfig
from prisma.train.loop import initial_model
from prisma.train.optimizer import decay_groups, learning_rate, make_optimizer

CONFIG = TrainConfig(steps=1000, batch_size=1, lr=0.5, warmup=9, weight_decay=0, checkpoint_every=200)


def test_matrices_decay_and_nothing_else(tiny: Recipe) -> None:
    config = replace(tiny.model, registers=2, layer_scale=True, qk_norm=True)
    model = initial_model(config, seed=0)
    names = {id(p): name for name, p in model.named_parameters()}
    decayed, kept = decay_groups(model, 0.3)
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.3, 0.0)
    assert {names[id(p)] for p in decayed["params"]} == {
        "embed.patch.weight",
        "blocks.0.attn.qkv.weight",
        "blocks.0.attn.out.weight",
        "blocks.0.mlp.pre.weight",
        "blocks.0.mlp.out.weight",
        "readout.head.weight",
    }
    assert len(decayed["params"]) + len(kept["params"]) == len(names)


def test_without_a_gradient_the_update_is_the_decay(tiny: Recipe) -> None:
    model = initial_model(tiny.model, seed=0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = make_optimizer(model, replace(tiny.training, weight_decay=0.5, lr=0.1))
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    after = dict(model.named_parameters())
    torch.testing.assert_close(after["readout.head.weight"], before["readout.head.weight"] * (1 - 0.1 * 0.5))
    assert torch.equal(after["embed.positions"], before["embed.positions"])


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


def test_stairs_fall_by_a_factor_and_everything_can_decay(tiny: Recipe) -> None:
    stairs = replace(CONFIG, warmup=3, decay_every=5, decay_factor=0.5)
    rates = [learning_rate(stairs, step) / CONFIG.lr for step in range(15)]
    assert rates == pytest.approx([1 / 4, 2 / 4, 3 / 4, 1, 1, *[1 / 2] * 5, *[1 / 4] * 5])
    rising = replace(stairs, warmup=7)
    assert learning_rate(rising, 6) == pytest.approx(CONFIG.lr * 7 / 8 / 2), "both at the same time"
    model = initial_model(tiny.model, seed=0)
    decayed, kept = decay_groups(model, 0.3, everything=True)
    assert len(decayed["params"]) == len(list(model.parameters())) and not kept["params"]
