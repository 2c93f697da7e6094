from collections.abc import Mapping

import torch

from prisma.train import Recipe
from prisma.train.objectives.learners import decoder_config
from tests.train.stacks import run_of


def test_parameters_have_the_names_that_they_have_in_the_model(recipes: Mapping[str, Recipe]) -> None:
    for name in ("reconstruction", "masked"):
        run = run_of(recipes[name], 0)
        own = dict(run.model.named_parameters())
        found = {key: p for key, p in run.learner.named_parameters() if not key.startswith("decoder.")}
        assert list(found) == list(own) and all(found[key] is own[key] for key in own)


def test_a_decoder_is_drawn_by_the_seed_and_is_not_the_encoder_again(recipes: Mapping[str, Recipe]) -> None:
    objective, state = recipes["masked"].objective, torch.random.get_rng_state()
    one, again, other = (objective.decoder(seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert one is not None and again is not None and other is not None
    assert all(torch.equal(p, q) for p, q in zip(one.parameters(), again.parameters(), strict=True))
    assert not torch.equal(one.enter.weight, other.enter.weight)
    encoder = decoder_config(recipes["masked"].model, 2, 6, 3)
    assert (encoder.n_layers, encoder.d_model, encoder.d_mlp, encoder.n_tokens) == (2, 6, 24, 17)
