"""The model that an artefact is about is loaded, compared, and named as the Hub names it."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import prisma
from prisma.checkpoint import weights_hash
from prisma.errors import PrismaError
from prisma.loaded import Loaded
from prisma.publish.artefacts import base_model
from prisma.publish.artefacts.base_model import BaseModel
from prisma.publish.facts import Fact
from prisma.vit import ViT


def weights(hub: Path, revision: str | None = None) -> str:
    return weights_hash(prisma.load("lab/tiny", revision, hub).model.state_dict())


def anything(model: ViT) -> None:
    """What fits every model."""


def test_it_is_the_model_with_these_weights(hub: Path) -> None:
    found = BaseModel.of("lab/tiny", "a tuned lens", weights(hub), hub, anything)
    assert (found.repo, found.ref, found.revision, found.input) == ("lab/tiny", "lab/tiny", None, (1, 8, 8))
    step = weights(hub, "step-000002")
    assert BaseModel.of("lab/tiny@step-000002", "a tuned lens", step, hub, anything).revision == "step-000002"
    with pytest.raises(PrismaError, match=f"with the weights {step[:12]}, to which a tuned lens belongs; found"):
        BaseModel.of("lab/tiny", "a tuned lens", step, hub, anything)
    assert BaseModel.read(Fact(found.to_dict(), "manifest.json")) == found
    assert found.metadata("adapter") == {"base_model": "lab/tiny", "base_model_relation": "adapter"}


def test_a_model_of_another_library_has_its_name_on_the_hub(
    hub: Path, finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not in the folder hub is loaded by its own library."""
    asked = []

    def load(*reference: object) -> Loaded:
        asked.append(reference)
        return prisma.load(finished_run)

    monkeypatch.setattr(base_model, "load", load)
    for ref, repo in (("hf/facebook/dinov2-base", "facebook/dinov2-base"), ("timm/vit_tiny", "timm/vit_tiny")):
        found = BaseModel.of(ref, "a tuned lens", weights(hub), hub, anything)
        assert (found.repo, found.ref) == (repo, ref)
    assert asked == [("hf/facebook/dinov2-base", None, None), ("timm/vit_tiny", None, None)]


def test_what_is_no_model_of_the_hub_is_refused(
    hub: Path, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished_run, tmp_path / "runs" / "tiny")
    for name, words in (
        (None, "found none: say --base-model OWNER/NAME"),
        ("mice/digits", "in this package alone: publish it too"),
        ("tiny", "which has no owner"),
        ("lab/tiny@", "found revision=''"),
        ("runs/tiny", "found 'runs/tiny', a folder on this machine: publish it"),
    ):
        with pytest.raises(PrismaError, match=words):
            BaseModel.of(name, "a tuned lens", "", hub, anything)
    found = BaseModel.of("lab/tiny", "a tuned lens", weights(hub), hub, anything)
    with pytest.raises(PrismaError, match="which has no owner"):
        BaseModel.read(Fact(replace(found, repo="tiny").to_dict(), "manifest.json"))
    for change, words in (
        (
            {"ref": "evil/tiny"},
            "expected ref in manifest.json to be lab/tiny, as prisma.load has it; found 'evil/tiny'",
        ),
        ({"revision": '") or ("'}, "expected revision in manifest.json to be a branch, a tag or a commit"),
    ):
        with pytest.raises(PrismaError, match=words):
            BaseModel.read(Fact({**found.to_dict(), **change}, "manifest.json"))
