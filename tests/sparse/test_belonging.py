"""A coder of other weights, another site or another width is refused wherever it meets a model."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import prisma
from prisma.analysis.attribution.questions import Neuron
from prisma.checkpoint import weights_hash
from prisma.edits import Zero
from prisma.errors import PrismaError
from prisma.features import Near, Pixels, visualize
from prisma.sparse.belonging import hash_of_model, stated_hash
from prisma.sparse.coders import Coder
from prisma.sparse.latent_attribution import latent_attribution
from prisma.sparse.latent_circuit import latent_circuit
from prisma.sparse.latent_edges import latent_edges
from prisma.sparse.latent_patching import latent_patching
from prisma.sparse.latent_target import Latent
from prisma.sparse.latents import latents
from prisma.sparse.splicing import Splice
from tests.sparse.test_coders import random_coder
from tests.variants import images_of, model_of

SITE, LATER = "blocks.0.resid_post", "blocks.1.resid_post"
OTHER = "expected the model that this coder was trained on, with the weights .*: to take it all the same, use other"


@pytest.fixture(scope="module")
def model() -> prisma.ViT:
    return model_of("base", torch.float32)


def coder_of(model: prisma.ViT, site: str = SITE) -> Coder:
    coder = random_coder("topk", 12, 20, 3, 0, sites=(site,)).float()
    coder.metadata["training"] = {"model_sha256": {"": hash_of_model(model)}}
    return coder


def metric(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, 0] - logits[:, 1]


Asked = Callable[[Coder, prisma.ViT, torch.Tensor, bool], object]
ASKED: dict[str, Asked] = {
    "latents": lambda c, m, x, o: latents(c, m, x, effect_images=1, other_model=o),
    "splice": lambda c, m, x, o: prisma.run(m, x, {SITE: Splice(c, other_model=o).ablate(1)}),
    "splice at a token": lambda c, m, x, o: prisma.run(m, x, {SITE: [Zero(), Splice(c, other_model=o).at(token=0)]}),
    "patching": lambda c, m, x, o: latent_patching(m, c, x, x.flip(0), metric, [(SITE, 1)], other_model=o),
    "attribution": lambda c, m, x, o: latent_attribution(m, c, x, x.flip(0), metric, other_model=o),
    "circuit": lambda c, m, x, o: latent_circuit(m, c, x[:1], x[1:2], metric, draws=1, other_model=o),
    "maps": lambda c, m, x, o: prisma.attribute(m, x, Near(2.0 * Latent(c, 1, other_model=o), 1.0), "occlusion"),
    "images": lambda c, m, x, o: visualize(m, Neuron(SITE, 3) - Latent(c, 1, other_model=o), Pixels(), steps=1),
    "edges": lambda c, m, x, o: latent_edges(
        m, c, coder_of(m, LATER), x, x.flip(0), metric, latents=[0], other_model=o
    ),
}


@pytest.mark.parametrize("name", ASKED)
def test_a_model_with_other_weights_is_refused_unless_it_is_asked_for(name: str, model: prisma.ViT) -> None:
    other, ask = model_of("base", torch.float32, seed=7), ASKED[name]
    images, coder = images_of(model, 4), coder_of(model)
    ask(coder, model, images, False)
    with pytest.raises(PrismaError, match=OTHER):
        ask(coder, other, images, False)
    ask(coder, other, images, True)


@pytest.mark.parametrize("in_training", [True, False], ids=["named then", "named now"])
def test_the_one_model_of_a_coder_is_known_by_whatever_name_it_has(in_training: bool, model: prisma.ViT) -> None:
    images, other = images_of(model, 12), model_of("base", torch.float32, seed=7)
    of_training = {"a": model} if in_training else model
    coder = prisma.sparse.train(of_training, images, site=SITE, width=8, k=2, steps=2, batch=16)

    def ask(model: prisma.ViT, other_model: bool) -> object:
        if in_training:
            return ASKED["splice"](coder, model, images, other_model)
        return latents(coder, {"b": model}, images, other_model=other_model)

    ask(model, False)
    with pytest.raises(PrismaError, match=OTHER):
        ask(other, False)
    ask(other, True)


def test_models_of_a_crosscoder_are_told_apart_by_their_names(model: prisma.ViT) -> None:
    images, other = images_of(model, 12), model_of("base", torch.float32, seed=7)
    both = prisma.sparse.train({"a": model, "b": other}, images, site=SITE, width=8, k=2, steps=2, batch=16)
    latents(both, {"a": model, "b": other}, images)
    with pytest.raises(PrismaError, match=OTHER):
        latents(both, {"a": other, "b": model}, images)
    assert stated_hash(both, "a") == hash_of_model(model) and stated_hash(both) is None
    first = random_coder("topk", 12, 8, 2, 0, sites=(f"{SITE}@a",))  # it reads one of the models alone
    first.metadata = both.metadata
    assert stated_hash(first) == hash_of_model(model) and stated_hash(first, "c") is None


def test_the_site_and_the_width_are_always_asked_for(model: prisma.ViT) -> None:
    images, coder = images_of(model, 2), coder_of(model)
    with pytest.raises(PrismaError, match=f"expected {SITE}, the site of this coder, to splice it in; found {LATER}"):
        prisma.run(model, images, {LATER: Splice(coder, other_model=True).ablate(1)})
    elsewhere = Coder(replace(coder.config, sites=("layers.0",)))  # a name of another library
    prisma.run(model, images, {LATER: Splice(elsewhere).ablate(1)})
    narrow = random_coder("topk", 6, 20, 3, 0, sites=(SITE,)).float()
    with pytest.raises(PrismaError, match="expected activations of width 6"):
        prisma.run(model, images, {SITE: Splice(narrow).ablate(1)})
    with pytest.raises(PrismaError, match="expected activations of width 6"):
        latents(narrow, model, images)


def test_the_hash_of_a_model_follows_its_weights(tmp_path: Path) -> None:
    model = model_of("base", torch.float32, seed=1)
    first = hash_of_model(model)
    assert hash_of_model(model) == first == hash_of_model(torch.compile(model))  # type: ignore[arg-type]
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1
    second = hash_of_model(model)
    compiled = torch.compile(model, backend="eager")
    images = images_of(model, 20)
    training = prisma.sparse.train(compiled, images, site=SITE, width=16, k=2, steps=2, batch=32)
    assert training.told["model_sha256"] == {"": second}, "whatever it is wrapped in"
    written = prisma.sparse.write_activations(compiled, images, out=tmp_path, sites=[SITE])
    assert written.index["model_sha256"] == second
    next(model.parameters()).data.view(-1)[1] += 1  # which torch does not count
    assert hash_of_model(model) == weights_hash(model.state_dict()) != second
    model.load_state_dict(model_of("base", torch.float32, seed=1).state_dict())
    assert second != first == hash_of_model(model)
