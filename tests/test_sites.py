"""The vocabulary, the tap and the cache."""

import pytest
import torch

import prisma
from prisma import PrismaError
from prisma.inventory import site_names
from prisma.sites import SITES, Cache, Tap, axes_of, canonical, matching, no_tap
from tests.variants import config_of, images_of, model_of


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        ("hook_embed", "embed"),
        ("blocks.0.attn.hook_q", "blocks.0.attn.q"),
        ("blocks.3.hook_resid_post", "blocks.3.resid_post"),
        ("blocks.3.ln1.hook_normalized", "blocks.3.ln1.normalized"),
        ("blocks.*.attn.hook_pattern", "blocks.*.attn.pattern"),
        ("embed", "embed"),
        ("my_hook_site", "my_hook_site"),
    ],
)
def test_the_hook_prefix_is_accepted_at_the_border(spelled: str, name: str) -> None:
    assert canonical(spelled) == name


def test_the_prefix_reads_and_edits_the_same_site() -> None:
    model = model_of("base")
    images = images_of(model)
    plain = prisma.record(model, images, "blocks.1.attn.z", {"blocks.0.mlp_out": prisma.Zero()})
    hooked = prisma.record(model, images, "blocks.1.attn.hook_z", {"blocks.0.hook_mlp_out": prisma.Zero()})
    assert torch.equal(plain[0], hooked[0])
    assert torch.equal(plain[1]["blocks.1.attn.hook_z"], hooked[1]["blocks.1.attn.z"])
    clean, corrupt = images[:1], images[1:]
    metric = prisma.LogitDiff(0, 1)
    assert torch.equal(
        prisma.sweep(model, clean, corrupt, "attn.hook_z", metric),
        prisma.sweep(model, clean, corrupt, "attn.z", metric),
    )


def test_axes_of_a_full_name() -> None:
    assert axes_of("blocks.11.attn.pattern") == ("batch", "head", "query", "key")
    assert axes_of("blocks.0.attn.q") == ("batch", "token", "head", "d_head")
    assert axes_of("pool.q") == axes_of("pool.z") == ("batch", "query", "head", "d_head")
    assert axes_of("pool.k") == axes_of("pool.v") == ("batch", "key", "head", "d_head")
    assert axes_of("blocks.0.time.k") == ("batch", "patch", "head", "d_head")
    assert all(axes[0] == "batch" for axes in SITES.values())


def test_globs_select_in_the_order_of_the_model() -> None:
    sites = site_names(config_of("base"))
    assert matching("blocks.*.resid_post", sites) == ["blocks.0.resid_post", "blocks.1.resid_post"]
    assert matching("*", sites) == list(sites)
    assert matching("blocks.[1].attn.?", sites) == [f"blocks.1.attn.{s}" for s in "qkvz"]


def test_an_unknown_site_is_answered_with_the_nearest() -> None:
    with pytest.raises(PrismaError, match=r"no site of this model matches 'blocks\.0\.attn\.Z'.*blocks\.0\.attn\.z"):
        matching("blocks.0.attn.Z", site_names(config_of("base")))
    with pytest.raises(PrismaError, match=r"blocks\.2\.attn\.z"):
        matching("blocks.2.attn.z", site_names(config_of("base")))


def test_no_tap_does_nothing() -> None:
    x = torch.ones(1)
    assert no_tap("embed", x) is x
    assert not no_tap.wants("embed")
    assert no_tap.within("blocks.0") is no_tap


def test_a_tap_edits_then_remembers_and_keeps_nothing_else() -> None:
    tap = Tap(frozenset({"blocks.0.attn.z"}), {"blocks.0.attn.z": (prisma.Add(1.0), prisma.Scale(2.0))})
    x = torch.zeros(1, 2, 3, 4)
    deeper = tap.within("blocks.0").within("attn")
    assert deeper.wants("z")
    assert not deeper.wants("q")
    assert deeper("q", x) is x
    assert torch.equal(deeper("z", x), torch.full_like(x, 2))
    assert list(tap.tensors) == ["blocks.0.attn.z"]
    assert torch.equal(tap.tensors["blocks.0.attn.z"], torch.full_like(x, 2))


def cache() -> Cache:
    return Cache({f"blocks.{layer}.attn.z": torch.full((1, 2), float(layer)) for layer in range(3)})


def test_a_cache_is_a_mapping_of_live_tensors() -> None:
    acts = cache()
    assert len(acts) == 3
    assert list(acts) == [f"blocks.{layer}.attn.z" for layer in range(3)]
    assert "blocks.1.attn.z" in acts
    assert "blocks.1.attn.q" not in acts
    assert repr(acts).startswith("Cache(blocks.0.attn.z[1, 2], ")
    with pytest.raises(KeyError, match=r"'blocks\.1\.attn\.q' was not read; .*blocks\.1\.attn\.z"):
        acts["blocks.1.attn.q"]


def test_stack_is_one_site_of_every_layer_that_was_read() -> None:
    assert torch.equal(cache().stack("attn.z")[:, 0, 0], torch.arange(3.0))
    assert cache().stack("attn.hook_z").shape == (3, 1, 2)
    with pytest.raises(PrismaError, match="no site"):
        cache().stack("attn.q")


def test_stack_is_in_the_order_of_the_layers_beyond_ten() -> None:
    model = model_of("base", n_layers=12, d_mlp=0)
    images = images_of(model, 1)
    _, acts = prisma.record(model, images, "blocks.*.resid_post")
    each = [prisma.record(model, images, f"blocks.{layer}.resid_post", stop=True)[0] for layer in range(12)]
    assert torch.equal(acts.stack("resid_post"), torch.stack(each))


def test_map_makes_a_new_cache() -> None:
    acts = cache()
    doubled = acts.map(lambda x: 2 * x)
    assert isinstance(doubled, Cache)
    assert torch.equal(doubled["blocks.2.attn.z"], 2 * acts["blocks.2.attn.z"])


def test_transformer_lens_names_of_the_outer_norms() -> None:
    assert canonical("ln_final.hook_normalized") == "ln_final"
    assert canonical("ln_pre.hook_normalized") == "ln_pre"
    assert canonical("blocks.0.ln1.hook_normalized") == "blocks.0.ln1.normalized"


@pytest.mark.parametrize("variant", ["divided", "pool_attention", "pool_attention_prefix", "dino"])
def test_an_axis_is_called_token_only_where_its_indices_are_all_tokens(variant: str) -> None:
    model = model_of(variant)
    acts = prisma.record(model, images_of(model), "*")[1]
    for site, x in acts.items():
        sizes = dict(zip(axes_of(site), x.shape, strict=True))
        assert sizes.get("token", model.config.n_tokens) == model.config.n_tokens, site
        assert sizes.get("patch", model.config.n_patches) == model.config.n_patches, site
        if ("patch" in sizes) or site.startswith("pool."):
            with pytest.raises(PrismaError, match=r"expected an axis of this site \(batch, .*\); found 'token'"):
                prisma.run(model, images_of(model), {site: prisma.Zero().at(token=0)})


def test_a_part_of_the_model_that_was_not_reached_is_named() -> None:
    tap = Tap({"embed"}, {"pooled": (prisma.Zero(),)})
    with pytest.raises(PrismaError, match="expected the model to compute embed, pooled; found that it does not"):
        tap.expect_reached()
    tap("embed", torch.zeros(1, 2, 3))
    tap.expect_reached(edited=False)
    tap.within("x")
    tap("pooled", torch.zeros(1, 2))
    tap.expect_reached()
