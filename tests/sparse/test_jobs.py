"""What a coder of a training is to become."""

import pytest

from prisma.errors import PrismaError
from prisma.sparse.activations import source_of
from prisma.sparse.jobs import Wanted, plan_of
from prisma.sparse.learner import default_lr
from tests.variants import images_of, model_of


def test_sites_may_be_written_as_elsewhere_and_widths_are_the_models() -> None:
    model = model_of("base")
    source = source_of(model, images_of(model), ["blocks.*.resid_post", "blocks.0.mlp.post"])
    plan = plan_of(Wanted(site="blocks.*.hook_resid_post", width=16, k=2), source, 100)
    assert plan.config.sites == ("blocks.0.resid_post", "blocks.1.resid_post") and plan.config.widths == (12, 12)
    assert plan.lr == default_lr(16) and plan.dead_after == 100
    across = plan_of(Wanted(site="blocks.0.hook_resid_post", target="blocks.0.mlp.hook_post", width=16, k=2), source, 1)
    assert (across.config.d, across.config.d_out, across.config.target) == (12, 10, "blocks.0.mlp.post")
    assert plan_of(Wanted(site="blocks.0.mlp.post", width=16, kind="gated", sparsity=0.1), source, 1).sparsity == 0.1
    with pytest.raises(PrismaError, match="expected a learning rate above 0"):
        plan_of(Wanted(site="blocks.0.mlp.post", width=16, k=2, lr=0.0), source, 1)
