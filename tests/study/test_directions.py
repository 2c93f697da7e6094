"""Analyses of directions over a data set: what is learned once, with which images, and what names a concept."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import prisma
from prisma import PrismaError
from prisma.data import task as task_named
from prisma.data.counterfactuals import counterfactuals
from prisma.data.pictures import no_pictures
from prisma.study.directions import DIRECTIONS
from prisma.study.inputs import ShardInputs
from prisma.study.shards import run_dataset_analysis
from tests.study.study import job_of

SITE = "blocks.0.resid_post"


def inputs_of(name: str, tmp_path: Path, rows: range = range(5), **given: str) -> ShardInputs:
    job = job_of(name, tmp_path / "out", **given)
    return ShardInputs(job.model, job.pictures, rows, job.options)


def test_subspaces_are_learned_once_and_read_on_every_shard(tmp_path: Path) -> None:
    job = job_of("interchange", tmp_path / "out", exchange="hue", steps="2", training="20", site=SITE)
    run_dataset_analysis(job, progress=False)
    found = DIRECTIONS["interchange"].result.from_npz(job.out / "result.npz")
    task = job.pictures.task
    assert task is not None
    pairs = [counterfactuals(task, "hue", "train", 20), counterfactuals(task, "hue", "test", rows=range(5))]
    triples: list[Any] = [x for pair in pairs for x in (pair.images, pair.sources, pair.labels)]
    expected = prisma.interchange(job.model, *triples, SITE, steps=2)
    assert torch.equal(found.arrays["accuracy"], expected.accuracy)
    torch.testing.assert_close(found.arrays["subspace"], expected.subspace)


def test_a_concept_is_a_value_of_a_factor_of_training_images(tmp_path: Path) -> None:
    inputs = inputs_of("steering", tmp_path, concept="shape:y", training="40", site=SITE, doses="-1,2", where="3")
    found = DIRECTIONS["steering"].function(inputs)
    images, chosen = inputs.training(40)[0], torch.arange(40) % 5 // 2 == 1
    direction = prisma.mean_difference(inputs.model, images, chosen, SITE, where=3)
    expected = prisma.steering(
        inputs.model, inputs.images, inputs.metric, direction, SITE, doses=torch.tensor([-1.0, 2.0]), where=3
    )
    torch.testing.assert_close(found.arrays["values"], expected.values)
    inputs = inputs_of("concept_vectors", tmp_path, concept="hue:1", draws="2", site=SITE)
    own = inputs.training(48)[0]
    odd = torch.arange(48) % 2 == 1
    vectors = prisma.concept_vectors(
        inputs.model, inputs.images, inputs.metric, own[odd][:12], own[~odd], SITE, draws=2
    ).vectors
    torch.testing.assert_close(DIRECTIONS["concept_vectors"].function(inputs).arrays["vectors"], vectors)


def test_names_of_heads_and_neurons_are_of_all_images_together(tmp_path: Path) -> None:
    for name in ("text_span", "second_order_lens"):
        inputs = inputs_of(name, tmp_path, range(2, 4))
        expected = getattr(prisma, name)(inputs.model, inputs.pictures.read(range(5)))
        found = DIRECTIONS[name].function(inputs)
        for array, x in found.arrays.items():
            rows = slice(2, 4) if found.axes[array][0] == "image" else slice(None)
            torch.testing.assert_close(x, expected.arrays[array][rows], equal_nan=True)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("interchange", {}, "expected --set exchange=FACTOR, what is exchanged between images; found none"),
        ("interchange", {"exchange": "size"}, "expected a factor of noise; found 'size'"),
        ("steering", {}, "expected --set concept=FACTOR:VALUE, such as hue:red, or label:3; found None"),
        (
            "steering",
            {"concept": "hue"},
            "expected --set concept=FACTOR:VALUE, such as hue:red, or label:3; found 'hue'",
        ),
        ("steering", {"concept": "size:1"}, "expected a factor of noise; found 'size'"),
        ("concept_vectors", {"concept": "shape:w"}, "expected a value of shape; found 'w'; the nearest: z, y, x"),
        ("concept_vectors", {"concept": "label:9"}, "expected a value of label; found '9'"),
        ("steering", {"concept": "hue:1", "doses": "one"}, "expected doses to be a list of which each is a number"),
    ],
)
def test_bad_options_are_one_sentence(name: str, given: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(PrismaError, match=message):
        DIRECTIONS[name].function(inputs_of(name, tmp_path, **given))


def test_without_a_task_there_are_no_factors(tmp_path: Path) -> None:
    job = job_of("interchange", tmp_path / "out", exchange="hue")
    with pytest.raises(PrismaError, match="expected a task, whose images have known factors; found a folder"):
        DIRECTIONS["interchange"].function(ShardInputs(job.model, no_pictures(), range(1), job.options))


def test_fourier_components_are_of_all_pairs_and_the_rows_are_those_of_the_shard(tmp_path: Path) -> None:
    job = job_of("fourier_components", tmp_path, frequencies="2")
    task = job.pictures.task
    assert task is not None
    splits = [task.splits[name] for name in ("test", "train")]
    images = torch.cat([job.pictures.read(range(5)), splits[1].images]).double()
    numbers = torch.stack([torch.cat([s.factors[name] for s in splits]) for name in ("first", "second")], 1)
    expected = prisma.fourier_components(job.model, images, numbers, frequencies=[2])
    found = DIRECTIONS["fourier_components"].function(ShardInputs(job.model, job.pictures, range(3, 5), job.options))
    torch.testing.assert_close(found.arrays["restricted_loss"], expected.restricted_loss[3:5])
    torch.testing.assert_close(found.arrays["contribution"], expected.contribution[3:5])
    torch.testing.assert_close(found.arrays["training_excluded_loss"], expected.excluded_loss[5:])


def test_a_task_that_is_no_sum_is_refused(tmp_path: Path) -> None:
    job = job_of("fourier_components", tmp_path)
    pictures = replace(job.pictures, task=task_named("digits"), training=lambda n: task_named("digits").inputs("train"))
    inputs = ShardInputs(job.model, pictures, range(5), job.options)
    with pytest.raises(PrismaError, match="expected a task whose label is the sum of its factors first and second"):
        inputs.pairs_of_numbers()
