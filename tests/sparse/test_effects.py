"""What single latents add to the outputs, against whole runs with a `Splice`; see also test_latents."""

import pytest
import torch

import prisma
from prisma.inventory import site_names
from prisma.sparse import effects
from prisma.sparse.effects import Effects
from prisma.sparse.splicing import Splice
from tests.sparse.test_coders import random_coder
from tests.variants import images_of, model_of

SITE = "blocks.0.resid_post"


def test_a_hook_on_the_model_is_part_of_every_run_and_batches_change_nothing() -> None:
    model = model_of("base", torch.float32)
    images, coder = images_of(model, 5), random_coder("topk", 12, 14, 3, 0, sites=(SITE,)).float()
    with torch.no_grad():
        z = coder.encode(prisma.record(model, images, SITE)[1][SITE])  # [image, token, latent]
    image = torch.tensor([[4, 0], [2, -1], [-1, -1]])
    maps = torch.stack([z[image[latent].clamp(min=0), :, latent] for latent in range(3)])
    tokens = list(range(z.shape[1]))

    def expect_as_with_splices() -> None:
        for batch in (1, 2, 5):
            with torch.no_grad():
                found = Effects(coder, model, images, tokens, batch).of(image, maps)
            for latent, rows in enumerate([[4, 0], [2], []]):
                x = images[rows]
                changed = prisma.run(model, x, {SITE: Splice(coder).ablate(latent)}) if rows else torch.zeros(0, 5)
                wanted = (model(x) - changed).mean(0) if rows else torch.zeros(5)
                assert torch.allclose(found[latent], wanted, atol=1e-5)

    expect_as_with_splices()
    before = model(images)
    for block in model.blocks:  # also the one of the site: the hook comes after it
        with block.register_forward_hook(lambda block, args, x: 1.5 * x + torch.arange(12) ** 2 / 20):
            assert not torch.allclose(model(images), before)
            expect_as_with_splices()
    with model.register_forward_hook(lambda _, args, logits: 2 * logits):
        expect_as_with_splices()


@pytest.mark.parametrize(
    "site", ["attn.z", "attn_out", "resid_mid", "mlp.post", "mlp_out", "mlp.pre", "ln2.normalized"]
)
@pytest.mark.parametrize("variant", ["base", "parallel", "divided"])
def test_runs_continue_from_every_site_of_a_block(site: str, variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(variant, torch.float64)
    images, name = images_of(model, 3), f"blocks.0.{site}"
    if name not in site_names(model.config):
        return
    x = prisma.record(model, images, name)[1][name].flatten(2)
    coder = random_coder("topk", x.shape[-1], 9, 3, 0, sites=(name,))
    z = coder.encode(x)
    image, tokens = torch.tensor([[2, 0]] * 9), list(range(1, x.shape[1]))
    maps = z[image][..., tokens, :].diagonal(dim1=0, dim2=3).permute(2, 0, 1)
    whole, runs = effects.run, list[int]()
    monkeypatch.setattr(effects, "run", lambda *arguments: runs.append(1) or whole(*arguments))
    found = Effects(coder, model, images, tokens).of(image, maps)
    assert bool(runs) == (site in ("mlp.pre", "ln2.normalized"))  # from all others, no run begins again
    for latent in range(9):
        edit = Splice(coder).ablate(latent).at(token=tokens)
        wanted = (model(images) - prisma.run(model, images, {name: edit}))[[2, 0]].mean(0)
        assert torch.allclose(found[latent], wanted, atol=1e-10), latent
