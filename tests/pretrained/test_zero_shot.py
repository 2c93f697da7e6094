"""Zero-shot classes: the pair's own answer, and every analysis in the space of the prompts."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

import prisma
from prisma import Loaded, PrismaError
from prisma.analysis.lens.logit_lens import logit_lens
from prisma.checkpoint import write_checkpoint
from prisma.inventory import site_names
from prisma.metrics import LogitDiff
from prisma.pretrained.source import Text
from tests.pretrained.test_source import tokenize
from tests.variants import images_of, model_of, tower_of

PROMPTS = ("a", "bc", "ed")
POOLINGS = ("base", "pool_mean", "pool_attention", "no_head", "norm_pooled_class", "no_head_bias", "rotary")


def pair(variant: str = "base", dtype: torch.dtype = torch.float64) -> Loaded:
    """A CLIP: an image tower of any form, and a text tower into the space of its logits."""
    image = model_of(variant, dtype).eval().requires_grad_(False)
    n_classes = image.config.n_classes or image.config.d_model
    text = tower_of("base", dtype, n_classes=n_classes).eval().requires_grad_(False)
    return Loaded(image, None, (), Text(text, tokenize, logit_scale=7.0, logit_bias=-2.0))


def similarity(loaded: Loaded, embeddings: Tensor) -> Tensor:
    assert loaded.text is not None
    return loaded.text.similarity(embeddings, PROMPTS)


@pytest.mark.parametrize("variant", POOLINGS)
def test_the_logits_are_the_similarity(variant: str) -> None:
    loaded = pair(variant)
    zero = loaded.zero_shot(PROMPTS)
    images = images_of(loaded.model)
    assert torch.equal(zero.model(images), similarity(loaded, loaded.model(images)))
    assert (zero.labels, zero.config.n_classes, zero.text) == (PROMPTS, 3, None)
    assert zero.transform is loaded.transform


@pytest.mark.parametrize("variant", POOLINGS)
def test_the_lens_ends_in_the_logits(variant: str) -> None:
    loaded = pair(variant)
    zero, images = loaded.zero_shot(PROMPTS), images_of(loaded.model)
    lens = logit_lens(zero.model, images)
    assert torch.allclose(lens.readout[:, -1], zero.model(images), rtol=1e-12)
    if loaded.config.n_classes:
        embeddings = logit_lens(loaded.model, images)
        assert torch.allclose(lens.readout, similarity(loaded, embeddings.readout), rtol=1e-12)
        assert torch.allclose(lens.tokens, similarity(loaded, embeddings.tokens), rtol=1e-12)


@pytest.mark.parametrize("variant", POOLINGS)
def test_every_site_is_offered_once_and_takes_edits(variant: str) -> None:
    loaded = pair(variant)
    zero, images = loaded.zero_shot(PROMPTS).model, images_of(loaded.model)
    sites = site_names(zero.config)
    logits, acts = prisma.record(zero, images, "*")
    assert sites == site_names(loaded.config)
    assert set(acts) == set(sites)
    assert torch.equal(acts["logits"], logits)
    for site in sites:
        edited = prisma.run(zero, images, {site: lambda x: x + torch.linspace(-1, 1, x.numel()).view_as(x)})
        assert not torch.allclose(edited, logits), site
    edit = {"blocks.0.attn.z": prisma.Zero().at(head=1)}
    assert torch.equal(prisma.run(zero, images, edit), similarity(loaded, prisma.run(loaded.model, images, edit)))


def test_a_sweep_measures_prompts() -> None:
    loaded = pair()
    clean, corrupt = images_of(loaded.model).split(1)
    found = prisma.sweep(loaded.zero_shot(PROMPTS).model, clean, corrupt, "attn.z", LogitDiff(0, 2))
    expected = prisma.sweep(loaded.model, clean, corrupt, "attn.z", lambda x: LogitDiff(0, 2)(similarity(loaded, x)))
    assert torch.allclose(found, expected, rtol=1e-12)


def test_the_weights_are_shared_and_the_pair_stays_as_it_was() -> None:
    loaded = pair()
    images = images_of(loaded.model)
    before, names = loaded.model(images), set(loaded.model.state_dict())
    zero = loaded.zero_shot(PROMPTS).model
    ours = {x.data_ptr() for x in loaded.model.state_dict().values()}
    own = [name for name, x in zero.state_dict().items() if x.data_ptr() not in ours]
    assert own == ["readout.head.directions"]
    assert not zero.training
    assert not any(p.requires_grad for p in zero.parameters())
    assert torch.equal(loaded.model(images), before)
    assert set(loaded.model.state_dict()) == names
    assert loaded.config.n_classes == 5


def test_it_moves_whole() -> None:
    loaded = pair()
    zero = loaded.zero_shot(PROMPTS).model.to(torch.float32)
    assert {x.dtype for x in zero.state_dict().values()} == {torch.float32}
    assert zero(images_of(loaded.model).float()).dtype == torch.float32


@pytest.mark.parametrize("variant", ["base", "no_head"])
def test_it_cannot_be_written_as_a_checkpoint(variant: str, tmp_path: Path) -> None:
    zero = pair(variant).zero_shot(PROMPTS)
    with pytest.raises(PrismaError, match=r"readout\.head\.directions is not part of this architecture"):
        write_checkpoint(tmp_path / "saved", zero.model, labels=zero.labels)
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize("prompts", [[], (), "a cat", None, 3, iter(["a cat"])])
def test_prompts_that_are_none(prompts: object) -> None:
    with pytest.raises(PrismaError, match="expected a list of prompts"):
        pair().zero_shot(prompts)  # type: ignore[arg-type]


def test_a_model_without_text_is_refused() -> None:
    zero = pair().zero_shot(PROMPTS)
    with pytest.raises(PrismaError, match="text side"):
        zero.zero_shot(PROMPTS)
    with pytest.raises(PrismaError, match="at most 4 letters"):
        pair().zero_shot(["abcde"])
