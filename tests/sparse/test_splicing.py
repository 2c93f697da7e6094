"""A coder in the middle of a run."""

import pytest
import torch

import prisma
from prisma.errors import PrismaError
from prisma.sparse.splicing import Splice
from tests.sparse.test_coders import random_coder
from tests.variants import images_of, model_of

SITE = "blocks.0.resid_post"


@pytest.fixture(scope="module")
def model() -> prisma.ViT:
    return model_of("base", torch.float32)


@pytest.mark.parametrize("site", [SITE, "blocks.0.attn.z", "pooled", "blocks.1.mlp.post"])
def test_an_untouched_coder_is_the_identity_and_without_its_error_it_is_its_reconstruction(
    model: prisma.ViT, site: str
) -> None:
    images = images_of(model, 3)
    logits, acts = prisma.record(model, images, site)
    x = acts[site]
    rows = x.flatten(2) if x.ndim > 2 else x
    coder = random_coder("topk", rows.shape[-1], 20, 3, 0, sites=(site,)).float()
    assert torch.equal(prisma.run(model, images, edit={site: Splice(coder)}), logits)
    alone = prisma.run(model, images, edit={site: Splice(coder, error=False)})
    assert torch.equal(alone, prisma.run(model, images, edit={site: prisma.Set(coder(rows).view_as(x))}))
    assert not torch.allclose(alone, logits)


def test_changes_of_latents_are_what_they_say(model: prisma.ViT) -> None:
    images = images_of(model, 3)
    _, acts = prisma.record(model, images, SITE)
    x, coder = acts[SITE], random_coder("topk", 12, 20, 3, 0).float()
    z = coder.encode(x)
    busiest = int((z > 0).sum((0, 1)).argmax())
    for splice, code in (
        (Splice(coder).ablate(busiest), 0 * z[..., busiest]),
        (Splice(coder).clamp(busiest, 2.5), 0 * z[..., busiest] + 2.5),
        (Splice(coder).scale(busiest, 3), 3 * z[..., busiest]),
        (Splice(coder).steer(busiest, 1.5), z[..., busiest] + 1.5),
        (Splice(coder).steer(busiest, 1.5).scale([busiest], 2), 2 * (z[..., busiest] + 1.5)),
    ):
        wanted = x + (code - z[..., busiest])[..., None] * coder.W_dec[busiest]
        assert torch.allclose(splice(x, ("batch", "token", "d_model")), wanted, atol=1e-5)
        by_hand = prisma.run(model, images, edit={SITE: prisma.Set(wanted)})
        assert torch.allclose(prisma.run(model, images, edit={SITE: splice}), by_hand, atol=1e-4)
    ablated = Splice(coder).ablate(busiest)
    by_hand = torch.cat([ablated(x, ("batch", "token", "d_model"))[:, :1], x[:, 1:]], 1)
    only_first = prisma.run(model, images, edit={SITE: ablated.at(token=0)})
    assert torch.allclose(only_first, prisma.run(model, images, edit={SITE: prisma.Set(by_hand)}), atol=1e-4)


def test_a_transcoder_is_spliced_in_at_its_target(model: prisma.ViT) -> None:
    images, reads = images_of(model, 2), "blocks.0.ln2.normalized"
    _, acts = prisma.record(model, images, [reads, "blocks.0.mlp_out"])
    coder = random_coder(
        "topk", 12, 20, 3, 0, sites=(reads,), target="blocks.0.mlp_out", d_out=12, skip=True, centred=False
    )
    coder = coder.float()
    whole = prisma.run(model, images, edit={"blocks.0.mlp_out": Splice(coder, error=False, reads=acts[reads])})
    assert torch.allclose(whole, prisma.run(model, images, edit={"blocks.0.mlp_out": prisma.Set(coder(acts[reads]))}))
    with pytest.raises(PrismaError, match=r"expected reads=\.\.\."):
        Splice(coder)


def test_it_is_a_value_that_says_what_it_is() -> None:
    coder = random_coder("topk", 12, 20, 3, 0)
    splice = Splice(coder).ablate([1, 2]).steer(3, 0.5)
    assert splice == Splice(coder).ablate([1, 2]).steer(3, 0.5) != Splice(coder).ablate(1)
    assert repr(splice).endswith("error=True).set([1, 2], 0).add([3], 0.5)")
    with pytest.raises(PrismaError, match="expected latents from 0 to 19; found 20"):
        Splice(coder).ablate(20)
    with pytest.raises(PrismaError, match="expected a finite number; found inf"):
        Splice(coder).clamp(1, float("inf"))
    with pytest.raises(PrismaError, match="expected a sparse coder to splice in; found a int"):
        Splice(3)  # type: ignore[arg-type]
    with pytest.raises(PrismaError, match="found a crosscoder"):
        Splice(random_coder("topk", 6, 20, 3, 0, sites=("a", "b"), widths=(2, 4)))


def test_a_coder_of_another_width_is_refused(model: prisma.ViT) -> None:
    with pytest.raises(PrismaError, match=r"the edit of blocks.0.resid_post: expected activations of width 5"):
        prisma.run(model, images_of(model), edit={SITE: Splice(random_coder("topk", 5, 20, 3, 0).float(), error=False)})


def test_latents_and_the_error_of_another_run(model: prisma.ViT) -> None:
    images = images_of(model, 4)
    x = prisma.record(model, images, SITE)[1][SITE]
    own, other = x[:2], x[2:]
    coder = random_coder("topk", 12, 20, 3, 0).float()
    z, wanted = coder.encode(own), coder.encode(other)
    axes = ("batch", "token", "d_model")
    found = Splice(coder, source=wanted).patch([3, 7])(own, axes)
    assert torch.allclose(found, own + (wanted - z)[..., [3, 7]] @ coder.W_dec[[3, 7]], atol=1e-5)
    whole = Splice(coder, source=wanted, source_error=other - coder(other)).patch(list(range(20)))
    assert torch.allclose(whole(own, axes), other, atol=1e-5)
    error = Splice(coder, source_error=other - coder(other))(own, axes)
    assert torch.allclose(error, coder(own) + other - coder(other), atol=1e-5)
    with pytest.raises(PrismaError, match=r"expected source=\.\.\., the code of another run"):
        Splice(coder).patch(3)
    with pytest.raises(PrismaError, match=r"expected source of the shape \[2, 10, 20\]; found \[1, 10, 20\]"):
        Splice(coder, source=wanted[:1]).patch(3)(own, axes)
    with pytest.raises(PrismaError, match="expected error=True"):
        Splice(coder, error=False, source_error=other)


@pytest.mark.parametrize("error", [True, False])
@pytest.mark.parametrize("width", [1, 7])
def test_a_transcoder_of_another_width_is_refused(model: prisma.ViT, error: bool, width: int) -> None:
    images = images_of(model, 2)
    reads = prisma.record(model, images, SITE)[1][SITE]
    coder = random_coder("topk", 12, 20, 3, 0, sites=(SITE,), target="blocks.1.mlp_out", d_out=width, centred=False)
    splice = Splice(coder.float(), error=error, reads=reads).ablate(1)
    with pytest.raises(PrismaError, match=rf"expected activations of width {width}, which .* writes; found 12"):
        prisma.run(model, images, edit={"blocks.1.mlp_out": splice})
