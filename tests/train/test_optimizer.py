from dataclasses import replace

import torch

from prisma.train import Recipe
from prisma.train.loop import initial_model
from prisma.train.optimizer import decay_groups, make_optimizer


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
