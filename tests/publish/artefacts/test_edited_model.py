"""An edited model, published beside its base, loaded from there, audited, and refused for another base."""

import json
from pathlib import Path

import pytest
import torch

import prisma
from prisma.editing import edit_class, measure_edit, read_edited, source_of, write_edited
from prisma.errors import PrismaError
from prisma.publish import audit, publish
from prisma.publish.artefacts.edited_model import facts_of, of_edited, write_card
from prisma.publish.metadata import problems
from prisma.repository import Published
from prisma.run_folder import CONFIG

REPO, BASE = "lab/tiny-edited", "lab/tiny"


@pytest.fixture
def edited(finished_run: Path, tmp_path: Path) -> Path:
    mouse = prisma.load(finished_run)
    images = torch.randn(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(60) % 10
    edit = edit_class(mouse.model, images, labels, 3, 8, method="class-row", names=mouse.labels, keys=4)
    write_edited(tmp_path / "edited", mouse, edit, measure_edit(mouse.model, edit, images, labels, 3, 8))
    write_card(tmp_path / "edited")
    return tmp_path / "edited"


def test_what_is_published_is_the_edited_model(hub: Path, edited: Path) -> None:
    first = publish(edited, REPO, hub, base_model=BASE, license="mit")
    assert (first.changed, first.made) == (True, ("main",))
    assert not publish(edited, REPO, hub, base_model=BASE, license="mit").changed
    assert not audit(REPO, hub) and not audit(REPO, hub, deep=True)
    there = prisma.load(REPO, hub=hub)
    assert source_of(there.model) == source_of(read_edited(edited).after.model)
    card = Published(REPO, hub).file("README.md").read_text()
    assert f"[{BASE}](https://huggingface.co/{BASE}) whose weights were edited" in card
    assert f"| `readout.head.weight` | 10 x {there.config.d_pooled} | 1 |" in card


def test_the_card_states_the_edit_and_its_measures(hub: Path, edited: Path) -> None:
    from huggingface_hub import ModelCard

    card = ModelCard(of_edited(edited, REPO, hub, BASE, "mit").card)
    data = card.data.to_dict()
    assert problems(data) == []
    assert (data["base_model"], data["base_model_relation"], data["license"]) == (BASE, "finetune", "mit")
    facts = facts_of(read_edited(edited))
    assert f"| locality | {facts['measures']['locality']['value']:.4f} |" in card.content


def test_a_base_with_other_weights_and_a_manifest_that_lies(hub: Path, edited: Path) -> None:
    with pytest.raises(PrismaError, match="expected the model that an edited model belongs to; found none"):
        publish(edited, REPO, hub)
    with pytest.raises(PrismaError, match=r"a base model with the weights .* to which an edited model belongs; found"):
        publish(edited, REPO, hub, base_model=f"{BASE}@step-000002")
    publish(edited, REPO, hub, base_model=BASE)
    path = Published(REPO, hub).file("manifest.json")
    manifest = json.loads(path.read_text())
    manifest["about"]["measures"]["locality"]["value"] = 1.0
    path.write_text(json.dumps(manifest, indent=2) + "\n")
    found = " ".join(str(finding) for finding in audit(REPO, hub))
    assert "found others of measures" in found
    assert (edited / CONFIG).is_file()
