"""A function of one run gives each of several runs what it gives it alone, attention and linear maps included."""

import torch
import torch.nn.functional as F

from prisma.train.each_run import of_each_run


def test_each_run_gets_what_it_gets_alone() -> None:
    torch.manual_seed(0)
    weights, images = torch.randn(3, 4, 4).double(), torch.randn(3, 5, 2, 7, 4).double()

    def one(weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        q = F.linear(x, weight)
        return F.scaled_dot_product_attention(q, x, q).sum()

    found = of_each_run(one)(weights, images)
    alone = torch.stack([one(w, x) for w, x in zip(weights, images, strict=True)])
    torch.testing.assert_close(found, alone)
