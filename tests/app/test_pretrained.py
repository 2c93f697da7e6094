"""A pretrained model in the app: one state, its own names, pictures that scikit-learn and scikit-image bring."""

from pathlib import Path

import pytest
import skimage.data
import torch
from prisma_app import main
from prisma_app.changes import with_model
from prisma_app.pretrained import PICTURES, PROMPTS, THUMBNAIL, Pretrained
from prisma_app.subject import transform_of
from prisma_app.tabs import lens, patching
from prisma_app.tabs.patching import asked
from sklearn.datasets import load_sample_images

import prisma
from prisma import Loaded, PrismaError
from prisma.checkpoint import write_checkpoint
from tests.app.conftest import ANIMALS, DIGITS
from tests.app.unpack import assert_near, read
from tests.variants import model_of


@pytest.fixture(scope="module")
def vit(vit_folder: Path) -> Pretrained:
    return Pretrained(str(vit_folder))


@pytest.fixture(scope="module")
def clip(clip_folder: Path) -> Pretrained:
    return Pretrained(str(clip_folder))


def test_it_has_one_state_and_its_own_names(vit: Pretrained, vit_folder: Path) -> None:
    assert (vit.name, vit.steps, vit.labels) == ("small-vit", [0], ANIMALS)
    assert vit.at(0) is vit.final
    with pytest.raises(PrismaError, match="expected a checkpoint from 0 to 0"):
        vit.at(1)
    theirs = prisma.load(vit_folder).model.state_dict()
    assert all(torch.equal(x, theirs[name]) for name, x in vit.final.model.state_dict().items())


def test_examples_are_real_pictures(vit: Pretrained) -> None:
    china, flower = load_sample_images().images
    expected = [picture[:, left : left + 427] for picture in (china, flower) for left in (0, 106, 213)]
    for i, (example, picture) in enumerate(zip(vit.examples()[:6], expected, strict=True)):
        assert torch.equal(example.x, transform_of(vit.final)(picture))
        assert example.example == i
        assert example.caption.startswith(("china.jpg", "flower.jpg"))
        assert "scikit-learn" in example.caption
        assert (vit.other_example(example).example < 3) == (i >= 3)
    for example, name in zip(vit.examples()[6:], PICTURES, strict=True):
        assert torch.equal(example.x, transform_of(vit.final)(getattr(skimage.data, name)()))
        assert example.caption == f"{name}, from scikit-image"
    assert vit.thumbnails().shape == (11, THUMBNAIL, THUMBNAIL, 3)
    assert vit.thumbnails() is vit.thumbnails()


def test_its_address_has_no_step(vit: Pretrained) -> None:
    assert with_model(vit).facts()["where"] == {"model": "small-vit", "image": 0, "view": "attention"}


def test_the_classes_of_a_clip_are_prompts(clip: Pretrained, clip_folder: Path) -> None:
    assert clip.labels == list(PROMPTS)
    loaded, session = prisma.load(clip_folder), with_model(clip)
    assert loaded.text is not None
    x = session.picture.x[None]
    similarity = loaded.text.similarity(loaded.model(x), PROMPTS)
    view = lens.TAB.view(session)
    assert_near(read(view, "readout")[-1], similarity[0].softmax(-1))
    assert view.facts["labels"][view.facts["answer"]] == PROMPTS[int(similarity.argmax())]
    cats = Pretrained(str(clip_folder), ["a cat", "two cats"])
    assert cats.labels == ["a cat", "two cats"]


def test_patching_is_in_the_space_of_the_prompts(clip: Pretrained) -> None:
    session = with_model(clip)
    view = patching.TAB.view(session)
    logits = clip.final.model(session.picture.x[None])[0]
    question = session.states["patching"]
    assert view.facts["clean"] == pytest.approx((logits[question.target] - logits[question.against]).item(), abs=1e-5)
    assert PROMPTS[question.target] in view.facts["metric"]


def test_a_model_without_classes_has_features(tmp_path: Path, vit: Pretrained) -> None:
    write_checkpoint(tmp_path / "bare", model_of("no_head", torch.float32, image_size=8, channels=3), transform={
        "size": [8, 8], "mean": [0.5] * 3, "std": [0.5] * 3
    })  # fmt: skip
    bare = Pretrained(str(tmp_path / "bare"))
    session = with_model(bare)
    assert session.labels[session.states["patching"].target].startswith("feature ")
    assert asked(session, "probability", 11, 0, "resid_mid", "clean").target == 11
    assert "feature" in patching.TAB.view(session).facts["metric"]
    with pytest.raises(PrismaError, match="n_classes=0"):
        lens.TAB.view(session)


def test_half_precision_takes_pictures(tmp_path: Path, clip_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = prisma.load(clip_folder)
    assert loaded.text is not None
    loaded.model.half()
    loaded.text.model.half()
    monkeypatch.setattr("prisma_app.pretrained.load", lambda _: loaded)
    half = Pretrained("open_clip/small")
    assert half.name == "open_clip/small"
    assert half.final.model(half.example(0).x[None]).dtype == torch.float32


def test_what_the_app_does_not_show(vit_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PrismaError, match="expected a model with a text side"):
        Pretrained(str(vit_folder), ["a cat"])
    with pytest.raises(PrismaError, match="found no such folder"):
        Pretrained(str(tmp_path / "nothing"))
    monkeypatch.setattr("prisma_app.pretrained.load", lambda _: Loaded(model_of("video"), None, ()))
    with pytest.raises(PrismaError, match="still images"):
        Pretrained("hf/some/video")


@pytest.mark.usefixtures("closed_loops")
def test_what_decides_between_a_mouse_and_a_pretrained_model(
    lab: Path, vit_folder: Path, clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def names(*given: object) -> list[str]:
        return main._offer(*given)[0]  # type: ignore[arg-type]

    assert names(tmp_path / "no hub", str(vit_folder), ()) == names(lab, str(vit_folder), ()) == ["small-vit"]
    monkeypatch.chdir(vit_folder.parent)
    assert names(lab, "small-vit", ()) == ["small-vit"]
    Path(DIGITS).mkdir(parents=True)
    assert DIGITS in names(lab, DIGITS, ())
    known, make = main._offer(lab, str(clip_folder), ("a", "b"))
    assert make(known[0]) is make(known[0])
    assert make(known[0]).labels == ["a", "b"]
    for model in (DIGITS, None):
        with pytest.raises(PrismaError, match="prompts are the classes of a CLIP"):
            main._offer(lab, model, ("a",))
    main.build(tmp_path, str(vit_folder))
