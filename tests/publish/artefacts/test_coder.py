"""A sparse coder, published to both hubs beside its model with its checkpoints, read back, and audited."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import prisma
from prisma.errors import PrismaError
from prisma.publish import audit, diff, publish
from prisma.publish.artefacts.coder import of_coder
from prisma.publish.artefacts.kinds import KINDS
from prisma.publish.commits import Commit, File
from prisma.publish.folder_hub import FolderHub
from prisma.publish.metadata import problems
from prisma.repository import ARTEFACT, MAIN, Published
from prisma.sparse.evaluated import EVALUATION, write_evaluation
from prisma.sparse.evaluation import evaluate
from prisma.sparse.files import CFG, WEIGHTS, read_coder
from prisma.sparse.training import train
from tests.conftest import made_once

REPO, BASE = "lab/tiny-coder", "lab/tiny"
STEPS = ("step-000002", "step-000004")


@pytest.fixture
def coder(finished_run: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a coder of `finished_run`, with two checkpoints and its numbers."""

    def make(folder: Path) -> None:
        mouse = prisma.load(finished_run)
        assert mouse.transform is not None
        images = mouse.transform.normalise(torch.rand(24, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
        out = folder / "coder"
        train(
            mouse.model, images, site="blocks.0.resid_post", width=16, k=2, steps=4, batch=32, checkpoint_every=2,
            out=out,
        )  # fmt: skip
        rows = evaluate(read_coder(out), mouse.model, images, labels=torch.arange(24) % 2, baseline_steps=2)
        write_evaluation(out, rows, "noise", len(images))

    return Path(shutil.copytree(made_once(tmp_path_factory, "small_coder", make) / "coder", tmp_path / "coder"))


def test_what_is_published_is_what_was_trained(address: Path | None, coder: Path) -> None:
    first = publish(coder, REPO, address, base_model=BASE, license="mit")
    assert (first.changed, first.revisions, first.made) == (True, STEPS, (*STEPS, "main"))
    again = publish(coder, REPO, address, base_model=BASE, license="mit")
    assert (again.changed, again.bytes, again.commit) == (False, 0, first.commit)
    assert not audit(REPO, address) and not audit(REPO, address, deep=True)
    assert not diff(coder, REPO, address, base_model=BASE, license="mit")
    for label, folder in {MAIN: coder, STEPS[0]: coder / "checkpoints" / STEPS[0]}.items():
        there = Published(REPO, address)
        for name in (CFG, WEIGHTS):
            assert there.file(name, label).read_bytes() == (folder / name).read_bytes()
        if address is None:
            found = prisma.load_coder(REPO, revision=label)
            assert torch.equal(found.W_dec, read_coder(folder).W_dec)
            assert found.metadata["training"]["step"] == (4 if label == MAIN else 2)


def test_the_card_has_all_numbers_and_the_baselines(hub: Path, coder: Path) -> None:
    from huggingface_hub import ModelCard

    card = ModelCard(of_coder(coder, REPO, hub, BASE, "mit").card)
    data = card.data.to_dict()
    assert problems(data) == []
    assert (data["base_model"], data["base_model_relation"], data["license"]) == (BASE, "adapter", "mit")
    rows = json.loads((coder / EVALUATION).read_text())["rows"]
    whole = [row for row in rows if row["tokens"] == "all"]
    assert [row["coder"] for row in whole] == ["coder", "random decoder", "random encoder", "pca", "neurons"]
    heads = next(line for line in card.content.splitlines() if line.startswith("|  | fvu |")).split(" | ")
    assert {"probe\\_5", "tpp"} <= set(heads) and "Do not choose a coder by `tpp`" in card.content
    for row in whole:
        assert f"| {row['coder']} | {row['fvu']:,.4g} | {row['l0']:,.4g} |" in card.content
    for name in {name for row in rows for name in row} - {"coder", "tokens"}:
        assert any(line.startswith((f"| {name} |", f"| `{name}` |", f"| {name.replace('_', chr(92) + '_')} |"))
                   for line in card.content.splitlines()), name  # fmt: skip
    assert "2 of the training, from step 2 to 4" in card.content and "on 24 images of `noise`" in card.content


def test_what_is_no_whole_coder_is_refused(hub: Path, coder: Path, tmp_path: Path) -> None:
    def expect(words: str, base: str | None = BASE) -> None:
        with pytest.raises(PrismaError, match=words):
            publish(coder, REPO, hub, base_model=base)

    expect("expected the model that a sparse coder belongs to; found none: .*--base-model", None)
    expect("expected a base model with the weights .* found .*: name the right repository", f"{BASE}@step-000002")
    numbers = (coder / EVALUATION).read_text()
    alone = json.loads(numbers) | {"rows": json.loads(numbers)["rows"][:1]}
    (coder / EVALUATION).write_text(json.dumps(alone))
    expect("expected rows of the coder and of baselines")
    (coder / EVALUATION).write_text(json.dumps(alone | {"weights": "0" * 64}))
    expect("expected numbers of these weights")
    (coder / EVALUATION).unlink()
    expect("expected evaluation.json, the numbers of the coder and of its baselines")
    (coder / EVALUATION).write_text(numbers)
    step = coder / "checkpoints" / STEPS[0]
    kept = (step / CFG).read_text()
    (step / CFG).write_text(kept.replace('"k": 2', '"k": 3'))
    expect("expected a checkpoint of the same training in .*step-000002; found other settings")
    (step / CFG).write_text(kept.replace('"step": 2', '"step": 3'))
    expect("expected a coder at the step of its label step-000002 in .*; found step 3")
    (step / CFG).write_text(kept)
    shutil.move(coder / "recipe.json", tmp_path / "elsewhere")
    expect("expected a coder that prisma sparse train wrote in .*; found none of recipe.json")
    (coder / "recipe.json").symlink_to(tmp_path / "elsewhere")
    expect("of the sparse coder .* to be no link")


def test_an_audit_finds_what_was_changed(hub: Path, coder: Path) -> None:
    publish(coder, REPO, hub, base_model=BASE)
    published = Published(REPO, hub)
    writer = FolderHub(published)

    def files(label: str) -> dict[str, bytes]:
        commit = writer.labels()[label]
        return {name: (published.snapshot(commit) / name).read_bytes() for name in writer.read_back(commit)}

    def serve(label: str, content: dict[str, bytes]) -> list[str]:
        with writer.writing():
            writer.put(label, Commit(tuple(File.of(name, data) for name, data in content.items())), "")
        return [f"{finding.revision}: {finding.problem}" for finding in audit(REPO, hub)]

    main, first, last = files(MAIN), files(STEPS[0]), files(STEPS[1])
    assert any(words.startswith(f"{STEPS[0]}: expected {CFG} of") for words in serve(STEPS[0], last))
    assert serve(STEPS[0], first) == []
    assert any("a checkpoint that the manifest does not state" in words for words in serve("step-000003", first))
    writer.unlabel("step-000003")
    writer.unlabel(STEPS[1])
    assert serve(MAIN, main) == [
        f"{STEPS[1]}: expected this checkpoint, as in the manifest; found no such label: publish again"
    ]
    assert serve(STEPS[1], last) == []
    better = main[EVALUATION].replace(b'"fvu": ', b'"fvu": 0.0', 1)
    assert any(f"expected {EVALUATION} of" in words for words in serve(MAIN, {**main, EVALUATION: better}))
    card = main["README.md"].replace(b"sparse coder", b"great coder")
    assert any("expected README.md as its data renders" in words for words in serve(MAIN, {**main, "README.md": card}))
    about = json.loads(main[ARTEFACT])["about"]
    assert set(KINDS["sparse-coder"].checkpoints(about)) == set(STEPS)


def test_weights_may_not_be_exchanged_for_others_of_the_same_shape(hub: Path, coder: Path) -> None:
    (coder / WEIGHTS).write_bytes((coder / "checkpoints" / STEPS[0] / WEIGHTS).read_bytes())
    assert load_file(coder / WEIGHTS)["W_dec"].shape == (16, read_coder(coder).config.d)
    with pytest.raises(PrismaError, match="expected numbers of these weights"):
        publish(coder, REPO, hub, base_model=BASE)
