"""A task's data set, published to both hubs, loaded by the library `datasets`, audited, and its card's code run."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from prisma.data import TASKS, task
from prisma.data.task import Split, data_hash
from prisma.errors import PrismaError
from prisma.publish import audit, diff, forecast, publish
from prisma.publish.artefacts.artefact import ArtefactManifest
from prisma.publish.artefacts.dataset import SIZES, facts_of, file_of, of_task, render
from prisma.publish.metadata import problems
from prisma.repository import ARTEFACT, DATASET, Published
from tests.data.test_dsprites import a_small_grid
from tests.docs.test_tutorials import blocks
from tests.hubserver.running import Hub

NAME = "circle-7"
REPO = f"lab/{NAME}"


def test_counts_are_those_of_the_images() -> None:
    data = task(NAME)
    about = facts_of(data, REPO)
    train, test = data.splits["train"], data.splits["test"]
    assert about["splits"] == {"train": 10, "test": 11}
    for value, a, b in about["factors"][0]["values"]:
        assert (a, b) == tuple(int((split.factors["first"] == value).sum()) for split in (train, test))
    for i, (name, a, b) in enumerate(about["classes"]):
        assert (name, a, b) == (str(i), int((train.labels == i).sum()), int((test.labels == i).sum()))
    assert about["rounding"] == 0
    assert facts_of(task("digits"), "lab/digits")["rounding"] == 0.002


def test_the_card_has_every_field_that_the_hub_documents() -> None:
    from huggingface_hub import DatasetCard

    card = DatasetCard(render(REPO, facts_of(task(NAME), REPO)))
    data = card.data.to_dict()
    assert problems(data, DATASET) == []
    assert {key: data[key] for key in ("license", "pretty_name", "task_categories", "size_categories")} == {
        "license": "mit",
        "pretty_name": NAME,
        "task_categories": ["image-classification"],
        "size_categories": ["n<1K"],
    }
    assert "| `first` | 6 | 0: 1, 5 · 1: 3, 2 · 2: 3, 1 · 3: 0, 3 · 4: 2, 0 · 5: 1, 0 |" in card.content
    assert [size for most, size in SIZES if most == 10**5] == ["10K<n<100K"]


def test_many_values_are_summed_up() -> None:
    about = facts_of(task(NAME), REPO)
    about["factors"][0]["values"] = [[i, int(i < 10), int(i < 11)] for i in range(101)]
    assert "| `first` | 101 | 0 to 100, each: 0 to 1, 0 to 1 |" in render(REPO, about)


@pytest.mark.parametrize("key", ["task", "sha256", "classes", "factors", "splits", "license", "seed", "command"])
def test_a_missing_fact_is_named(key: str) -> None:
    with pytest.raises(PrismaError, match=f"expected {key} in about of {ARTEFACT}; found none"):
        render(REPO, {**facts_of(task(NAME), REPO), key: None})


def test_counts_that_are_not_all_images_are_refused() -> None:
    about = facts_of(task(NAME), REPO)
    about["classes"][0][1] += 1
    with pytest.raises(PrismaError, match="that are all 10 images of the split train; found 11"):
        render(REPO, about)
    with pytest.raises(PrismaError, match="expected license"):
        of_task(replace(task(NAME), license=None), REPO)


def test_in_a_folder_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = tmp_path / "hub"
    foreseen = forecast(f"task:{NAME}", REPO, hub)
    first = publish(f"task:{NAME}", REPO, hub)
    assert (first.changed, first.revisions, first.made) == (True, (), ("main",))
    assert foreseen.files == 4 and foreseen.bytes == first.bytes and foreseen.revisions == ("main",)
    again = publish(f"task:{NAME}", REPO, hub)
    assert (again.changed, again.bytes, again.commit) == (False, 0, first.commit)
    assert (
        audit(f"datasets/{REPO}", hub, deep=True)
        == audit("datasets/lab/*", hub)
        == diff(f"task:{NAME}", REPO, hub)
        == []
    )
    with pytest.raises(PrismaError, match=f"{REPO} is not published"):
        audit(REPO, hub)
    expect_loaded(tmp_path, monkeypatch)


def expect_loaded(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The card's code for a folder hub, run beside it, loads the task's own images, labels, masks and factors."""
    import datasets

    monkeypatch.chdir(place)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", place / "datasets")
    datasets.disable_progress_bars()
    card = Published(REPO, place / "hub", kind=DATASET).file("README.md").read_text()
    code = blocks(card, "python")
    names: dict[str, object] = {}
    exec(code[1], names)
    found, data = names["data"], task(NAME)
    for split, wanted in data.splits.items():
        rows = found[split]  # type: ignore[index]
        assert rows["label"] == wanted.labels.tolist() and rows.features["label"].names == list(data.labels)
        assert all(rows[key] == x.tolist() for key, x in wanted.factors.items())
        pixels = torch.stack([torch.from_numpy(np.array(image)) for image in rows["image"]])
        assert torch.equal(pixels / 255, wanted.images[:, 0])
    exec(code[2], names)


def test_on_the_hub(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    first = publish(f"task:{NAME}", REPO)
    assert server.api.dataset_info(REPO).private
    assert [branch.name for branch in server.api.list_repo_refs(REPO, repo_type="dataset").branches] == ["main"]
    assert (tmp_path / "home" / "prisma" / "publishing" / f"lab--{NAME}.jsonl").is_file()
    server.forget()
    again = publish(f"task:{NAME}", REPO, public=True)
    assert (first.changed, again.changed, again.bytes, again.commit) == (True, True, 0, first.commit)
    assert not server.asked("commit") and not server.asked("lfs_batch")
    assert not server.api.dataset_info(REPO).private
    assert audit(f"datasets/{REPO}", deep=True) == audit("datasets/lab/*") == diff(f"task:{NAME}", REPO) == []
    card = Path(server.api.hf_hub_download(REPO, "README.md", repo_type="dataset")).read_text()
    code = blocks(card, "python")[0]
    environment = {"PATH": "", **server.environment(tmp_path / "other")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0].startswith("(32, 32) ")


def test_another_data_set_needs_to_replace(tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    publish(f"task:{NAME}", "lab/rings", hub)
    with pytest.raises(PrismaError, match=r"expected main of lab/rings to serve the files .*--replace"):
        publish("task:circle-5", "lab/rings", hub)
    assert publish("task:circle-5", "lab/rings", hub, replace=True).moved == ("main",)
    assert not audit("datasets/lab/rings", hub, deep=True)


def test_the_files_are_the_manifests(tmp_path: Path) -> None:
    artefact = of_task(task(NAME), REPO)
    commit = artefact.main({})
    manifest = ArtefactManifest.parse(b"".join(commit.file(ARTEFACT).chunks()))
    assert [record.name for record in manifest.files] == ["README.md", file_of("train"), file_of("test")]
    assert manifest.id == artefact.run and manifest.kind == DATASET


def test_dsprites_comes_back_as_it_went(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of black and white alone, whose masks they are: a part of the grid, audited to its last byte."""
    a_small_grid(monkeypatch)
    whole = task("dsprites")

    def make() -> tuple[Split, Split]:
        def part(split: Split) -> Split:
            some = split.images[:150]
            return Split(some, split.labels[:150], some[:, 0], {key: x[:150] for key, x in split.factors.items()})

        train, test = (part(split) for split in whole.make())
        return train, test

    small = replace(whole, make=make, sha256=data_hash(*make()))
    monkeypatch.setitem(TASKS, "dsprites", small)  # type: ignore[arg-type]
    publish("task:dsprites", "lab/dsprites", tmp_path / "hub")
    assert audit("datasets/lab/dsprites", tmp_path / "hub", deep=True) == []
