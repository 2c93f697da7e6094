"""The mice of pairs: one network for both, and a goal that changes for one of them."""

from dataclasses import replace

import torch

from prisma.recipes.pairs import EVERY, PAIRS, PAIRS_VARYING
from prisma.train.objectives.labels import Varying


def test_the_two_differ_in_nothing_but_whether_the_goal_changes() -> None:
    assert replace(PAIRS_VARYING.training, goal_every=0) == PAIRS.training and PAIRS_VARYING.model == PAIRS.model
    steady, varying = PAIRS.objective, PAIRS_VARYING.objective
    assert isinstance(steady, Varying) and isinstance(varying, Varying)
    assert torch.equal(steady.goal(0), steady.goal(2999)) and torch.equal(steady.goal(0), varying.goal(EVERY - 1))
    goals = torch.stack([varying.goal(step) for step in range(0, PAIRS.training.steps, EVERY)])
    assert len(goals.unique(dim=0)) == 15


def test_the_mouse_is_a_network_of_one_token() -> None:
    assert (PAIRS.model.n_tokens, PAIRS.model.n_weights) == (1, 12320)
