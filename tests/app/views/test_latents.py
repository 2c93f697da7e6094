"""The Latents view: what a coder finds in an image, the list, one latent, and the answer with a change."""

from pathlib import Path

import pytest
import torch
from prisma_app.coders import coders_of
from prisma_app.library import Library, Scene, library_of
from prisma_app.models import Mouse
from prisma_app.state import State
from prisma_app.twin import file_name, files_of
from prisma_app.views import VIEWS

import prisma
from prisma.errors import PrismaError
from prisma.sparse.latents import latents
from prisma.sparse.splicing import Splice
from tests.app.coded import EARLY, END, coded_hub
from tests.app.conftest import DIGITS, GLYPHS
from tests.app.unpack import unpack

view = VIEWS["latents"]


@pytest.fixture(scope="module")
def coded(lab: Path, tmp_path_factory: pytest.TempPathFactory) -> Library:
    return library_of(coded_hub(lab, tmp_path_factory), DIGITS, ())


def scene(library: Library, **keys: object) -> Scene:
    return library.scene(State.of({"model": DIGITS, "img": "2", **keys}))


@torch.no_grad()
def test_the_image_has_its_latents_on_its_patches(coded: Library) -> None:
    here = scene(coded)
    found = view.view(here)
    facts, arrays = unpack(found.pack())
    assert [one["name"] for one in facts["coders"]] == [EARLY, END] and facts["coder"] == END
    coder = coders_of(here.subject)[1].coder
    logits, acts = prisma.record(here.loaded.model, here.picture.x[None], coder.site)
    z = coder.encode(acts[coder.site])[0]
    strength = z.abs().amax(0)
    for rank, (latent, value) in enumerate(facts["latents"]):
        assert value == pytest.approx(strength[latent].item(), abs=1e-5)
        assert torch.allclose(arrays["maps"][rank] / 255, (z[:, latent].abs() / strength[latent]).double(), atol=3e-3)
    values = [value for _, value in facts["latents"]]
    assert values == sorted(values, reverse=True) and facts["grid"] == [here.config.grid[1], here.config.grid[2]]
    latent = facts["latents"][0][0]
    for change, edit in (
        ("scale:0", Splice(coder).ablate(latent)),
        ("steer:2.5", Splice(coder).steer(latent, 2.5)),
    ):
        changed = scene(coded, latent=latent, change=change)
        wanted = prisma.run(here.loaded.model, here.picture.x[None], {coder.site: edit})[0]
        answers = view.values(changed)
        assert answers["logits"] == pytest.approx(logits[0].tolist(), abs=1e-5)
        assert answers["changed"] == pytest.approx(wanted.tolist(), abs=1e-5)
        after = dict(view.view(changed).facts["after"])
        for label, probability in after.items():
            assert probability == pytest.approx(wanted.softmax(-1)[here.subject.labels.index(label)].item(), abs=1e-5)
        names: dict[str, object] = {}
        exec(view.code(changed), names)
        assert torch.allclose(names["changed"][0], wanted, atol=1e-5)  # type: ignore[index]


def test_the_list_and_each_latent_are_those_of_the_library(coded: Library) -> None:
    here = scene(coded, coder=END)
    coder = coders_of(here.subject)[1].coder
    probe = here.subject.probe()
    assert probe is not None
    wanted = latents(coder, here.loaded.model, probe[0][:128], top=8, effect_images=2)
    facts, arrays = unpack(view.view(here, 0).pack())
    assert facts["width"] == 24 and torch.allclose(arrays["density"], wanted.density, atol=1e-6)
    assert arrays["pictures"].shape[0] == min(len(probe[0]), 128)
    facts, arrays = unpack(view.view(here, 1 + 5).pack())
    assert arrays["image"][0].tolist() == wanted.image[5].tolist()


def test_every_step_has_its_own_coders_and_what_is_absent_is_said(coded: Library) -> None:
    early = view.view(scene(coded, step=0))
    assert early.facts["coder"] == EARLY
    between = coded.subject(DIGITS, None).steps[1]
    facts = view.view(scene(coded, step=between)).facts
    assert facts["coder"] is None and "after the steps 0, 40, and none of step" in facts["says"]
    none = view.view(coded.scene(State.of({"model": GLYPHS}))).facts
    assert none["coders"] == [] and none["says"].startswith("There is no sparse coder of this model here.")
    for keys, words in (
        ({"coder": END, "step": 0}, "expected training step 40, of whose weights lab/digits-coder is; found step 0"),
        ({"coder": "lab/nothing"}, "expected a sparse coder of lab/digits, lab/digits-early, lab/digits-coder; found"),
        ({"latent": 24}, "expected a latent from 0 to 23; found 24"),
        ({"change": "scale:x"}, "expected a change as scale:2 or steer:4"),
    ):
        with pytest.raises(PrismaError, match=words):
            view.view(scene(coded, **keys))


def test_a_page_without_a_server_has_the_latents_of_its_steps(coded: Library) -> None:
    mouse = coded.subject(DIGITS, None)
    assert isinstance(mouse, Mouse)
    files = files_of([mouse.published], "x", 1, 1)
    place = {"model": DIGITS, "step": 40}
    made = {name for name in files if name.startswith("data/latents/")}
    assert made == {
        f"data/{file_name('latents', **place, img='0')}.js",
        *(f"data/{file_name('latents', **place, part=part)}.js" for part in range(25)),
    }
