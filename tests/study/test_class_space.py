"""Analyses of class space over a data set: ties, probes that are trained once, weights without images."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from prisma import PrismaError
from prisma.analysis.class_space.class_identifiability import ClassIdentifiability, class_identifiability
from prisma.analysis.class_space.linear_probes import LinearProbes, Probes, linear_probes, train_probes
from prisma.analysis.class_space.memories import Memories, memories
from prisma.data.pictures import no_pictures
from prisma.study import class_space
from prisma.study.class_space import CLASS_SPACE
from prisma.study.inputs import ShardInputs
from prisma.study.shards import run_dataset_analysis
from tests.study.study import job_of


def test_what_is_read_from_weights_alone_needs_no_images(tmp_path: Path) -> None:
    job = replace(job_of("memories", tmp_path / "out", layer="attn"), pictures=no_pictures())
    summary = run_dataset_analysis(job, progress=False)
    assert summary["images"] == 0 and "memory_of_class" not in summary["arrays"]
    found = Memories.from_npz(job.out / "result.npz")
    assert torch.equal(found.top_classes, memories(job.model, site="attn").top_classes)
    assert found.report("abcde").startswith("layer 0, memory ") and len(found.report().splitlines()) == 10


def test_probes_are_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, calls = job_of("linear_probes", tmp_path / "out", training="8"), list[int]()

    def counted(*args: Any, **options: Any) -> Probes:
        calls.append(1)
        return train_probes(*args, **options)

    monkeypatch.setattr(class_space, "train_probes", counted)
    run_dataset_analysis(job, progress=False)
    assert job.pictures.training is not None and job.pictures.labels is not None
    images, labels = job.pictures.training(8)
    expected = linear_probes(job.model, images, labels, job.pictures.read(range(5)), job.pictures.labels)
    assert torch.equal(LinearProbes.from_npz(job.out / "result.npz").probe, expected.probe)
    assert len(calls) == 1


def test_what_needs_labels_or_training_images_says_so(tmp_path: Path) -> None:
    job = job_of("linear_probes", tmp_path)
    bare = replace(job.pictures, training=None)
    cases = {"expected images with labels": replace(bare, labels=None), "expected a task, whose": bare}
    for message, pictures in cases.items():
        with pytest.raises(PrismaError, match=message):
            CLASS_SPACE["linear_probes"].function(ShardInputs(job.model, pictures, range(3), job.options))


def test_a_data_set_of_one_class_is_refused_and_a_shard_of_one_is_not(tmp_path: Path) -> None:
    for name in ("class_identifiability", "class_similarity_change", "attention_perturbation", "memories"):
        job = job_of(name, tmp_path)
        CLASS_SPACE[name].function(ShardInputs(job.model, job.pictures, range(1), job.options))
        alike = replace(job.pictures, labels=torch.zeros(5, dtype=torch.long))
        with pytest.raises(PrismaError, match=r"a data set with two classes or more, .*; found one class in 5 images"):
            CLASS_SPACE[name].function(ShardInputs(job.model, alike, range(3), job.options))


def test_layers_and_published_numbers_are_options(tmp_path: Path) -> None:
    given: dict[str, dict[str, str]] = {
        "memories": {"layers": "1", "ln": "none"},
        "attention_perturbation": {"layers": "1,0"},
        "token_perturbation": {},
    }
    for name, options in given.items():
        job = job_of(name, tmp_path, compat="vilas2023", **options)
        found = CLASS_SPACE[name].function(ShardInputs(job.model, job.pictures, range(3), job.options))
        assert found.metadata["compat"] == "vilas2023"
        layers = [int(x) for x in options["layers"].split(",")] if "layers" in options else None
        assert found.metadata.get("layers") == layers
    job = job_of("memories", tmp_path, layers="one")
    with pytest.raises(PrismaError, match="expected layers to be a list of which each is a whole number; found 'one'"):
        CLASS_SPACE["memories"].function(ShardInputs(job.model, job.pictures, range(3), job.options))


def test_shards_with_and_without_ties_are_merged(tmp_path: Path) -> None:
    """Classes 3 and 4 tie, so images 3 and 4 have ties and the others have none."""
    job = job_of("class_identifiability", tmp_path / "out", shard_size=3, control="true")
    weight, bias = job.model.readout.head.weight.data, job.model.readout.head.bias.data
    weight[3:], bias[3:] = 0, bias[3]
    run_dataset_analysis(job, progress=False)
    found = ClassIdentifiability.from_npz(job.out / "result.npz")
    images, labels = job.pictures.read(range(5)), job.pictures.labels
    assert labels is not None and found.tied is not None
    parts = [class_identifiability(job.model, images[i], labels[i], control=True) for i in (slice(3), slice(3, 5))]
    assert parts[0].tied is None and parts[1].tied is not None
    assert torch.equal(found.rank, torch.cat([part.rank for part in parts]))
    assert torch.equal(found.tied, torch.cat([torch.ones_like(parts[0].rank), parts[1].tied]))
    expected = torch.cat([part.of("patches", control=True) for part in parts])
    torch.testing.assert_close(found.of("patches", control=True), expected)
    assert found.coverage is not None
    assert list(found.by_kind(found.of_tokens())) == ["class", "patches", "object", "context"]
