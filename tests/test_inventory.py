"""Which sites a model has: in forward order, and without drawing a random number. Every form is in test_vit."""

import torch

from prisma.inventory import site_names
from tests.variants import config_of


def test_sites_come_in_forward_order() -> None:
    block = (
        "resid_pre ln1.normalized attn.q attn.k attn.v attn.scores attn.pattern attn.z attn.result attn_out resid_mid"
    )
    block += " ln2.normalized mlp.pre mlp.post mlp_out resid_post"
    blocks = [f"blocks.{layer}.{site}" for layer in range(2) for site in block.split()]
    assert site_names(config_of("base")) == ("embed", "pos_embed", *blocks, "ln_final", "pooled", "logits")


def test_listing_draws_no_random_number() -> None:
    before = torch.get_rng_state()
    site_names.cache_clear()
    site_names(config_of("large"))
    assert torch.equal(before, torch.get_rng_state())
