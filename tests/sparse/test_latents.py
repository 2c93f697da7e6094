"""What each latent is active on and what it does, against loops over latents, images and tokens."""

import pytest
import torch
from torch import Tensor

import prisma
from prisma.analysis.class_space.class_embeddings import class_embeddings
from prisma.data.pictures import Pictures
from prisma.errors import PrismaError
from prisma.sparse.coders import Coder
from prisma.sparse.latents import Latents, latents
from prisma.sparse.splicing import Splice
from tests.sparse.test_coders import random_coder
from tests.variants import images_of, model_of

SITES = {"blocks.0.resid_post": 12, "blocks.1.resid_pre": 12, "blocks.0.attn.z": 12, "pooled": 12}
M, IMAGES, TOP = 14, 7, 3


@pytest.fixture(scope="module")
def model() -> prisma.ViT:
    return model_of("registers", torch.float32)


@pytest.fixture(scope="module")
def images(model: prisma.ViT) -> Tensor:
    return images_of(model, IMAGES)


def coder_of(site: str, kind: str = "topk") -> Coder:
    return random_coder(kind, SITES[site], M, 2, 1, sites=(site,)).float()


@torch.no_grad()
def slow(coder: Coder, model: prisma.ViT, images: Tensor, tokens: list[int], effect_images: int) -> dict[str, list]:
    """Each image alone, each latent alone, each ablation a whole run with a `Splice`."""
    site = coder.site
    codes, clean = [], []
    for x in images:
        logits, acts = prisma.record(model, x[None], site)
        value = acts[site][0]
        rows = value.reshape(1, -1) if site == "pooled" else value.flatten(1)[tokens]
        codes.append(coder.encode(rows))
        clean.append(logits[0])
    found: dict[str, list] = {"density": [], "image": [], "maps": [], "effect": []}
    for latent in range(M):
        on = sum(int((z[:, latent] != 0).sum()) for z in codes)
        found["density"].append(on / (len(images) * len(codes[0])))
        strength = [max(z[:, latent].abs().tolist()) for z in codes]
        order = [i for i in sorted(range(len(images)), key=lambda i: -strength[i]) if strength[i] > 0][:TOP]
        found["image"].append([*order, *[-1] * (TOP - len(order))])
        found["maps"].append([codes[i][:, latent] for i in order])
        edit = Splice(coder).ablate(latent)
        at = edit if site == "pooled" else edit.at(token=tokens)
        changes = [clean[i] - prisma.run(model, images[i][None], {site: at})[0] for i in order[:effect_images]]
        found["effect"].append(torch.stack(changes).mean(0) if changes else torch.zeros(5))
    return found


def expect_equal(found: Latents, wanted: dict[str, list]) -> None:
    assert found.density.tolist() == pytest.approx(wanted["density"])
    assert found.image.tolist() == wanted["image"]
    for latent, maps in enumerate(wanted["maps"]):
        for rank, one in enumerate(maps):
            assert torch.allclose(found.maps[latent, rank], one, atol=1e-5)
    assert found.effect is not None and torch.allclose(found.effect, torch.stack(wanted["effect"]), atol=1e-5)


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("kind", ["topk", "abstopk"])
def test_one_pass_gives_what_loops_give(model: prisma.ViT, images: Tensor, site: str, kind: str) -> None:
    coder = coder_of(site, kind)
    found = latents(coder, model, images, top=TOP, effect_images=2, batch=3)
    everything = list(range(model.config.n_tokens))
    expect_equal(found, slow(coder, model, images, everything, 2))
    if site != "pooled":  # of patches alone, read a few at a time
        pictures = Pictures(tuple("abcdefg"), "", lambda rows: images[torch.as_tensor(rows)])
        found = latents(coder, model, pictures, tokens="patches", top=TOP, effect_images=2)
        expect_equal(found, slow(coder, model, images, everything[4:], 2))
        assert found.metadata["prefix"] == [] and found.metadata["grid"] == [1, 3, 3]


def test_neighbours_and_classes_are_cosines_of_the_decoder(model: prisma.ViT, images: Tensor) -> None:
    coder = coder_of("blocks.0.resid_post")
    found = latents(coder, model, images, effect_images=0)
    assert found.effect is None and found.effect_size is None and found.classes is not None
    assert found.image.shape == (M, IMAGES), "no more images than there are"
    rows, classes = coder.W_dec.detach(), class_embeddings(model).detach()
    for latent in range(M):
        alike = [float(torch.cosine_similarity(rows[latent], rows[j], dim=0)) for j in range(M)]
        order = sorted((j for j in range(M) if j != latent), key=lambda j: -alike[j])[:8]
        assert found.near[latent].tolist() == order
        assert found.near_cosine[latent].tolist() == pytest.approx([alike[j] for j in order], abs=1e-6)
        cosines = [float(torch.cosine_similarity(rows[latent], e, dim=0)) for e in classes]
        assert found.classes[latent].tolist() == pytest.approx(cosines, abs=1e-6)
    assert latents(coder_of("blocks.0.attn.z"), model, images, effect_images=0).classes is None


def test_latents_that_are_active_nowhere_are_dead_and_said_to_be(model: prisma.ViT, images: Tensor) -> None:
    coder = coder_of("blocks.0.resid_post")
    coder.b_enc[:3] = -1e4
    found = latents(coder, model, images, top=TOP)
    assert found.dead[:3].all() and (found.image[:3] == -1).all() and found.effect is not None
    assert not found.effect[:3].any() and f"; {int(found.dead.sum())} dead." in found.report()
    size = found.effect_size
    assert size is not None
    largest, names = int(size.argmax()), ["ant", "bee", "cat", "dog", "eel"]
    output = int(found.effect[largest].abs().argmax())
    assert f"latent {largest} adds {found.effect[largest, output]:+.3f} to {names[output]}" in found.report(names)
    coder.b_enc[:] = -1e4
    assert latents(coder, model, images, top=TOP).density.sum() == 0


def test_crosscoders_have_images_and_no_effects(model: prisma.ViT, images: Tensor) -> None:
    sites = ("blocks.0.resid_post", "blocks.1.resid_post")
    coder = random_coder("topk", 24, M, 2, 1, sites=sites, widths=(12, 12)).float()
    found = latents(coder, model, images, top=TOP)
    assert found.effect is None and found.classes is None and found.maps.shape == (M, TOP, model.config.n_tokens)
    with pytest.raises(PrismaError, match="expected effect_images to be 0 or more; found -1"):
        latents(coder, model, images, effect_images=-1)
    for name in ("top", "effect_images"):
        with pytest.raises(PrismaError, match=f"expected {name} to be a whole number; found 1.5"):
            latents(coder, model, images, **{name: 1.5})
