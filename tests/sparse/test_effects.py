"""What single latents add to the outputs, against whole runs with a `Splice`; see also test_latents."""

import torch

import prisma
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
    handle = model.blocks[1].register_forward_hook(lambda block, args, x: x + torch.arange(12) ** 2 / 20)
    with handle:
        assert not torch.allclose(model(images), before)
        expect_as_with_splices()
    with model.register_forward_hook(lambda _, args, logits: 2 * logits):
        expect_as_with_splices()
