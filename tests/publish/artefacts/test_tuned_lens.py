"""A tuned lens, published to both hubs beside its model, read back, refused for another model, and audited."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import prisma
from prisma.analysis.lens.tuned_lens import CONFIG, WEIGHTS
from prisma.errors import PrismaError
from prisma.publish import audit, diff, publish
from prisma.publish.artefacts.tuned_lens import facts_of, of_lens
from prisma.publish.metadata import problems
from prisma.repository import Published
from tests.docs.test_tutorials import blocks

REPO, BASE = "lab/tiny-lens", "lab/tiny"


def test_what_is_published_is_what_was_trained(
    address: Path | None, lens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = publish(lens, REPO, address, base_model=BASE, license="mit")
    assert (first.changed, first.revisions, first.made) == (True, (), ("main",))
    again = publish(lens, REPO, address, base_model=BASE, license="mit")
    assert (again.changed, again.bytes, again.commit) == (False, 0, first.commit)
    assert not audit(REPO, address) and not audit(REPO, address, deep=True)
    assert not diff(lens, REPO, address, base_model=BASE, license="mit")
    there, here = prisma.read_tuned_lens(REPO, hub=address), prisma.read_tuned_lens(lens)
    assert torch.equal(there.weight, here.weight) and there.metadata == here.metadata
    assert torch.equal(prisma.read_tuned_lens(REPO, first.commit, address).bias, here.bias)
    other = prisma.load(BASE, "step-000002", address).model
    with pytest.raises(PrismaError, match="expected a lens that was trained on this model"):
        prisma.tuned_lens(other, there, torch.zeros(1, 1, 8, 8))
    with pytest.raises(PrismaError, match=r"at nowhere|no revision 'nowhere'"):
        prisma.read_tuned_lens(REPO, "nowhere", address)
    card = Published(REPO, address).file("README.md").read_text()
    monkeypatch.chdir((address or tmp_path).parent)
    code = blocks(card, "python")
    for block in code[1:] if address else [code[0], code[1].replace('Path("hub")', "None")]:
        names: dict[str, object] = {}
        exec(block, names)
    assert names["found"].readout.shape == (1, 2, 10)  # type: ignore[attr-defined]


def test_the_card_states_the_model_and_the_losses(hub: Path, lens: Path) -> None:
    from huggingface_hub import ModelCard

    card = ModelCard(of_lens(lens, REPO, hub, BASE, "mit").card)
    data = card.data.to_dict()
    assert problems(data) == []
    assert (data["base_model"], data["base_model_relation"], data["license"]) == (BASE, "adapter", "mit")
    losses = prisma.read_tuned_lens(lens).losses
    assert f"| 0 | {losses[0, 0]:.4f} | {losses[-1, 0]:.4f} |" in card.content
    assert "| `steps` | 3 |" in card.content
    assert facts_of(prisma.read_tuned_lens(lens))["stages"] == 1


def test_the_base_model_must_have_the_weights_of_the_lens(hub: Path, lens: Path) -> None:
    with pytest.raises(
        PrismaError, match=r"expected the model that a tuned lens belongs to; found none: .*--base-model"
    ):
        publish(lens, REPO, hub)
    with pytest.raises(
        PrismaError, match=r"expected a base model with the weights .* found .*: name the right repository"
    ):
        publish(lens, REPO, hub, base_model=f"{BASE}@step-000002")
    with pytest.raises(PrismaError, match=f"expected another repository than that of the base model; found {BASE}"):
        publish(lens, BASE, hub, base_model=BASE, replace=True)
    content = json.loads((lens / CONFIG).read_text())
    del content["metadata"]["model"]
    (lens / CONFIG).write_text(json.dumps(content))
    with pytest.raises(PrismaError, match="expected a tuned lens that states the weights of its model"):
        publish(lens, REPO, hub, base_model=BASE)


def test_what_a_person_wrote_stays(hub: Path, lens: Path) -> None:
    (lens / "README.md").write_text("<!-- prose -->\nTrained on noise.\n<!-- /prose -->\n")
    publish(lens, REPO, hub, base_model=BASE)
    assert "\nTrained on noise.\n" in Published(REPO, hub).file("README.md").read_text()
    assert not audit(REPO, hub)


def test_links_and_other_files_stay_here(hub: Path, lens: Path, tmp_path: Path) -> None:
    (lens / "notes.txt").write_text("mine")
    publish(lens, REPO, hub, base_model=BASE)
    with pytest.raises(PrismaError, match="has no file"):
        Published(REPO, hub).file("notes.txt")
    shutil.move(lens / WEIGHTS, tmp_path / "elsewhere")
    (lens / WEIGHTS).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PrismaError, match=r"of the tuned lens .* to be no link"):
        publish(lens, REPO, hub, base_model=BASE)


def test_a_lens_of_fewer_stages_than_the_model_is_refused(hub: Path, lens: Path) -> None:
    """It would be published, and `prisma.tuned_lens` would refuse it."""
    arrays = load_file(lens / WEIGHTS)
    twice = {name: torch.cat([x, x], dim=int(name == "losses")) for name, x in arrays.items()}
    save_file(twice, lens / WEIGHTS)
    with pytest.raises(PrismaError, match="expected a tuned lens for 1 layers and d_model"):
        publish(lens, REPO, hub, base_model=BASE)
