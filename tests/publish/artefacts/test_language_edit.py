"""An edit of a language model, published beside its base, applied from there, audited, and refused for another base."""

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch

from prisma.editing.weight_edit import WeightEdit
from prisma.errors import PrismaError
from prisma.language.fine_tuning import fine_tuned_edit
from prisma.language.loading import load
from prisma.language.mouse import FOLDER, known_facts, texts
from prisma.language.rewriting import measure_rewrite, write_rewritten
from prisma.publish import audit, publish
from prisma.publish.artefacts.language_edit import MOST_FACTS, facts_of, of_language_edit, render, write_card
from prisma.publish.metadata import problems
from prisma.repository import Published

REPO, BASE, FACT = "lab/tuba", "lab/talker", known_facts()[0]


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A folder hub that has the mouse."""
    repo, commit = tmp_path / "hub" / "models--lab--talker", "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(FOLDER, repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    return tmp_path / "hub"


@pytest.fixture
def edited(tmp_path: Path) -> Path:
    model, tokenizer = load("mice/facts")
    edit = fine_tuned_edit(model, tokenizer, FACT, layer=0, lr=5e-3, steps=4)
    write_rewritten(tmp_path / "edited", model, tokenizer, edit, measure_rewrite(model, tokenizer, edit, texts()[:10]))
    write_card(tmp_path / "edited")
    return tmp_path / "edited"


def test_what_is_published_is_the_edit(hub: Path, edited: Path) -> None:
    own = (edited / "README.md").read_text()
    assert "A change of a language model after which it gives another answer." in own and "license" not in own
    first = publish(edited, REPO, hub, base_model=BASE, license="mit")
    assert (first.changed, first.made) == (True, ("main",))
    assert not publish(edited, REPO, hub, base_model=BASE, license="mit").changed
    assert not audit(REPO, hub) and not audit(REPO, hub, deep=True)
    edit = WeightEdit.read(Published(REPO, hub).file("edit.safetensors"))
    model, _ = load(BASE, hub=hub)
    with edit.apply(model):
        there, _ = load(edited)
        assert torch.equal(model.model.layers[0].mlp.down_proj.weight, there.model.layers[0].mlp.down_proj.weight)
    card = Published(REPO, hub).file("README.md").read_text()
    assert f"the language model [{BASE}](https://huggingface.co/{BASE}) after which it gives another answer" in card
    assert 'load("lab/talker")' in card and 'hf_hub_download("lab/tuba", "edit.safetensors")' in card


def test_the_card_has_the_results_of_the_folder(hub: Path, edited: Path) -> None:
    from huggingface_hub import ModelCard

    card = ModelCard(of_language_edit(edited, REPO, hub, BASE, "mit").card)
    data = card.data.to_dict()
    assert problems(data) == []
    assert (data["base_model"], data["base_model_relation"], data["license"]) == (BASE, "adapter", "mit")
    measures = json.loads((edited / "measures.json").read_text())
    after, loss = measures["facts"][0]["likelihood"][1], measures["texts"]["loss"]
    assert f"| {FACT.text} | {FACT.new} | " in card.content and f" | {after:.4f} | " in card.content
    assert f"is {loss[0]:.4f} nats before and {loss[1]:.4f} after" in card.content


def test_a_card_of_many_facts_shows_some(edited: Path) -> None:
    edit, measures = WeightEdit.read(edited / "edit.safetensors"), json.loads((edited / "measures.json").read_text())
    many = {"facts": measures["facts"] * (MOST_FACTS + 3), "texts": None}
    about = {**facts_of(edit, many), "base_model": {"repo": BASE, "revision": "v1"}, "environment": {"prisma": "1"}}
    card = render(REPO, about)
    assert card.count(f"| {FACT.text} |") == MOST_FACTS and "And 3 more facts" in card and "other answers" in card
    assert 'revision="v1"' in card and "It was not measured on other texts." in card
    one = {**measures["texts"], "texts": 1}
    card = render(REPO, {**about, "texts": one})
    assert (
        "In one text that should stay as it is, the mean loss" in card and "after; one text gives no interval." in card
    )


def test_another_base_and_a_manifest_that_lies(hub: Path, edited: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(PrismaError, match="expected the model that an edit of a language model belongs to; found none"):
        publish(edited, REPO, hub)
    for base, message in {
        "mice/facts": "found 'mice/facts', which is in this package alone",
        REPO: "expected another repository than that of the base model",
        "lab/none": "expected a causal language model of transformers at 'lab/none'; found none",
    }.items():
        with pytest.raises(PrismaError, match=message):
            publish(edited, REPO, hub, base_model=base)
    publish(edited, REPO, hub, base_model=BASE)
    path = Published(REPO, hub).file("manifest.json")
    manifest = json.loads(path.read_text())
    manifest["about"]["facts"][0]["likelihood"][1] = 1.0
    path.write_text(json.dumps(manifest, indent=2) + "\n")
    assert "found others of facts" in " ".join(str(finding) for finding in audit(REPO, hub))
    model, _ = load("mice/facts")
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight[0, 0] += 1
    snapshot = next((hub / "models--lab--talker" / "snapshots").iterdir())
    model.save_pretrained(snapshot)
    with pytest.raises(PrismaError, match=r"expected the weights that the edit was made for in model.layers.0"):
        publish(edited, "lab/other", hub, base_model=BASE)
